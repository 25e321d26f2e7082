//! A call: described by a stub, sent when it is awaited, or made a part of another.

use std::{
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{
    Alone, Arg, Arguments, Outcome,
    compose::{Node, Op},
    post::{FreeText, Manner, Post, PostText, StubMethod, Unsent},
    scope::Scope,
};
use crate::{
    Data, Error, Kind, PostingEnd,
    endpoint::CoNumber,
    value::{Handles, Packed, Short, ValueError, unpack_short},
};

/// A call of a peer's method, which answers a `T` or fails with an `E`.
///
/// It is a future: nothing is sent before it is awaited, [`Call::send`] is called, or another call
/// that it is an argument of is sent. Passed un-awaited to another call it travels in the same round
/// trip. Dropping it once it is sent cancels it at the peer.
///
/// `B` says whether the call stands by itself ([`Alone`]), and so may be made of any of several peers,
/// or belongs to one connection ([`OfConnection`](super::OfConnection)). Nobody has to write it.
#[must_use = "a call does nothing until it is awaited, sent, or passed to another call"]
pub struct Call<T, E = Error, B = Alone> {
    po: PostingEnd,
    state: State,
    /// Whose error an `E` is.
    method: Option<&'static StubMethod>,
    extra: Option<Box<Extra>>,
    answer: Answers<T, E, B>,
}

/// What few calls have.
#[derive(Debug, Default)]
struct Extra {
    within: Option<Duration>,
    /// Whether an answer that carries a stream or an object is an error.
    plain: bool,
    /// The closure of a `map` that it was made in.
    scope: u64,
    /// What was sent, where it is no stub's text: failures show their place in it.
    text: Option<Box<FreeText>>,
}

impl Extra {
    /// What a call has for where it is made.
    #[inline]
    fn here() -> Option<Box<Self>> {
        match Scope::current() {
            0 => None,
            scope => Some(Self::of(scope)),
        }
    }

    #[cold]
    fn of(scope: u64) -> Box<Self> {
        Box::new(Self {
            scope,
            ..Self::default()
        })
    }
}

type Answers<T, E, B> = PhantomData<fn() -> (T, E, B)>;

enum State {
    /// Not sent.
    Ready(Box<Unsent>),
    /// On its way.
    Sent(CoNumber),
    /// Answered.
    Over,
}

impl<T, E, B> fmt::Debug for Call<T, E, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ready(_) => "not sent",
            State::Sent(_) => "sent",
            State::Over => "over",
        };
        write!(f, "Call({}, {state})", self.root())
    }
}

impl<T, E, B> Call<T, E, B> {
    pub(super) fn composed(po: PostingEnd, node: Node) -> Self {
        Self::of(po, Arg::new(Arc::new(node)))
    }

    pub(super) fn of(po: PostingEnd, arg: Arg) -> Self {
        Self::posting(po, Unsent::shared(arg))
    }

    pub(super) fn posting(po: PostingEnd, unsent: Box<Unsent>) -> Self {
        Self::with(po, unsent, None)
    }

    /// A call of a method.
    #[inline]
    pub(super) fn method(
        po: &PostingEnd,
        unsent: Box<Unsent>,
        method: &'static StubMethod,
    ) -> Self {
        Self::with(po.clone(), unsent, Some(method))
    }

    /// The same, of which an argument is pending.
    #[cold]
    pub(super) fn shared(
        po: &PostingEnd,
        unsent: Box<Unsent>,
        method: &'static StubMethod,
    ) -> Self {
        let call = Self::method(po, unsent, method);
        call.share();
        call
    }

    /// A call that fails when it is awaited.
    pub(super) fn failed(po: PostingEnd, error: Error) -> Self {
        let text = PostText::free("".into(), Vec::new());
        let post = Post::new(text, Arguments::failed(error));
        Self::posting(po, Unsent::new(post))
    }

    #[inline]
    fn with(po: PostingEnd, unsent: Box<Unsent>, method: Option<&'static StubMethod>) -> Self {
        Self {
            po,
            state: State::Ready(unsent),
            method,
            extra: Extra::here(),
            answer: PhantomData,
        }
    }

    /// Whose error an `E` is, by its name in scripts.
    fn root(&self) -> &'static str {
        self.method.map_or("", |method| method.path)
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    fn is_plain(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.plain)
    }

    #[inline]
    fn within_time(&self) -> Option<Duration> {
        self.extra.as_ref().and_then(|extra| extra.within)
    }

    /// Fails where the call is not one to this peer.
    pub(crate) fn check_peer(&self, peer: &PostingEnd) -> Result<(), Error> {
        if self.po.is_of(peer) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Misuse,
            "the call goes to another connection than the one it was to be made of: make its stub \
             of the peer that is handed over, each time",
        ))
    }

    /// Fails where the call does not stand by itself, and sees to it that its answer does: neither
    /// carries a stream or an object, which belong to one connection.
    #[cfg(feature = "balance")]
    pub(crate) fn check_plain(&mut self) -> Result<(), Error> {
        self.extra().plain = true;
        let plain = match &mut self.state {
            State::Ready(unsent) => unsent.post().is_plain(),
            State::Sent(_) | State::Over => true,
        };
        match plain {
            true => Ok(()),
            false => Err(not_plain("an argument")),
        }
    }

    /// What awaiting the call gives; hbi's error apart, before the method's own is told from it:
    /// [`Self::failed_with`] makes that of it.
    pub(crate) async fn answer(&mut self) -> Result<Result<T, E::Error>, Error>
    where
        T: DeserializeOwned + 'static,
        E: Outcome,
    {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    /// What awaiting the call would fail with.
    pub(crate) fn failed_with(&self, error: Error) -> E::Error
    where
        E: Outcome,
    {
        E::outcome(error, self.root())
    }

    pub(super) fn po(&self) -> &PostingEnd {
        &self.po
    }

    /// The call as a part of a composition.
    pub(super) fn share(&self) -> Arg {
        let State::Ready(unsent) = &self.state else {
            // told when the composition is sent
            return self.arg(Node::new(Op::Sent, Vec::new()));
        };
        let mut post = unsent.lock();
        let arg = match &post.text {
            PostText::Shared(arg) => Arg::clone(arg),
            _ => self.arg(post.as_node(&self.po)),
        };
        let arg = match self.within_time() {
            Some(time) => self.timed(arg, time),
            None => arg,
        };
        let old = post.replace_by(arg.clone());
        drop(post);
        drop(old);
        arg
    }

    fn arg(&self, node: Node) -> Arg {
        Arg {
            node: Arc::new(node),
            scope: self.extra.as_ref().map_or(0, |extra| extra.scope),
        }
    }

    /// The argument with the time it is given, once.
    fn timed(&self, arg: Arg, time: Duration) -> Arg {
        match arg.node.op {
            Op::Within(other) if other <= time => arg,
            Op::Within(_) => self.arg(Node::new(Op::Within(time), arg.node.args.clone())),
            _ => self.arg(Node::new(Op::Within(time), vec![arg])),
        }
    }

    /// Gives the call this long, from when it is awaited or sent: a wait until the peer takes more calls
    /// is part of it. The peer is told how much is left; calls it makes for this one inherit that. When it
    /// has passed, the call ends with an error ([`Error::is_timeout`]), and what runs for it at the peer is
    /// cancelled.
    ///
    /// A composition has the shortest time that is given to one of its calls. Once a call is sent it
    /// is too late, and the call fails.
    pub fn within(mut self, time: Duration) -> Self {
        let State::Ready(unsent) = &mut self.state else {
            let text = "`within` comes too late for a call that was sent: set it before `send`";
            return Self::failed(self.po.clone(), Error::new(Kind::Misuse, text));
        };
        unsent.post().leave_line();
        let within = &mut self.extra().within;
        *within = Some(within.map_or(time, |other| other.min(time)));
        self
    }

    /// Sends the call now, and returns it: its answer comes when it is awaited. Where the peer takes
    /// no more calls at the moment it is sent when it is awaited.
    pub fn send(mut self) -> Self {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(error)) = self.poll_sent(&mut cx) {
            return Self::failed(self.po.clone(), error);
        }
        self
    }

    /// The request, if it was not sent.
    pub(super) fn into_unsent(mut self) -> Result<Box<Unsent>, Error> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Ready(unsent) => Ok(unsent),
            sent => {
                self.state = sent;
                Err(Error::new(Kind::Misuse, "this call was sent before"))
            }
        }
    }

    /// Whether all methods that it calls may safely run twice (`#[hbi(idempotent)]`). A call that was
    /// sent, and a script, answers `false`.
    pub fn is_idempotent(&self) -> bool {
        match &self.state {
            State::Ready(unsent) => unsent.lock().text.is_idempotent(),
            State::Sent(_) | State::Over => false,
        }
    }

    /// Sends the call the short way, if it is one of a stub's method and nothing beside and was not
    /// sent; its answer will wake this task.
    #[inline]
    fn call_now(&mut self, cx: &mut Context<'_>) -> bool {
        let within = self.within_time();
        if let (State::Ready(unsent), None) = (&mut self.state, within)
            && let Some(co) = unsent.post().call(&self.po, cx)
        {
            self.sent(co);
            return true;
        }
        false
    }

    /// It is on its way.
    #[inline]
    fn sent(&mut self, co: CoNumber) {
        if let State::Ready(unsent) = std::mem::replace(&mut self.state, State::Sent(co)) {
            unsent.done();
        }
    }

    /// Sends the call if it was not sent.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let within = self.within_time();
        let State::Ready(unsent) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        let post = unsent.post();
        let manner = Manner {
            value: true,
            call: true,
            last: true,
            data: self.po.literal().is_some() && ends_in_data::<T>(),
        };
        match ready!(post.poll_open(&self.po, manner, within, cx)) {
            Ok(co) => {
                let text = post.text.take_free();
                self.sent(co);
                if text.is_some() {
                    self.extra().text = text;
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                self.state = State::Over;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<T: DeserializeOwned + 'static, E: Outcome, B> Call<T, E, B> {
    /// The answer, or the method's own error where the wire tells it apart; or hbi's error, before the
    /// method's own is told from it.
    #[inline]
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Result<T, E::Error>, Error>> {
        if self.call_now(cx) {
            return Poll::Pending;
        }
        if !matches!(self.state, State::Sent(_)) {
            ready!(self.poll_sent(cx))?;
        }
        let State::Sent(co) = self.state else {
            let error = Error::new(Kind::Misuse, "this call was awaited to its end before");
            return Poll::Ready(Err(error));
        };
        let link = self.po.link();
        let mut short = Short::none();
        // taken apart where it stands: it was just written, in parts
        match link.poll_reply(link, co, &mut short, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(None)) => {
                self.state = State::Over;
                self.unpacked(unpack_short(&short))
            }
            Poll::Ready(Ok(Some(packed))) => {
                self.state = State::Over;
                self.answered(packed)
            }
            Poll::Ready(Err(error)) => {
                self.state = State::Over;
                Poll::Ready(Err(self.shown(error)))
            }
        }
    }

    /// A failure, with the place in the text that it is about.
    #[cold]
    fn shown(&self, error: Error) -> Error {
        let text = self.extra.as_ref().and_then(|extra| extra.text.as_ref());
        match text {
            Some(text) => text.show(error),
            None => error,
        }
    }

    /// What an answer means.
    fn answered(&self, packed: Packed) -> Poll<Result<Result<T, E::Error>, Error>> {
        if self.is_plain() && !packed.handles().is_empty() {
            return Poll::Ready(Err(not_plain("the answer").sent()));
        }
        if self.po.literal().is_none() {
            return self.unpacked(packed.unpack());
        }
        let (bytes, handles) = packed.into_parts();
        let unpacked = Packed::from_parts(bytes.clone(), handles).unpack();
        if unpacked.is_err()
            && let Some(own) = E::own(Packed::from_parts(bytes, Handles::new()))
        {
            return Poll::Ready(Ok(Err(own)));
        }
        self.unpacked(unpacked)
    }

    #[inline]
    fn unpacked(&self, value: Result<T, ValueError>) -> Poll<Result<Result<T, E::Error>, Error>> {
        Poll::Ready(value.map(Ok).map_err(|error| self.unfit(error)))
    }

    #[cold]
    fn unfit(&self, error: ValueError) -> Error {
        let root = self.root();
        let of = if root.is_empty() { "" } else { " of " };
        let wanted = std::any::type_name::<T>();
        Error::new(
            Kind::Value,
            format!("the answer{of}{root} is no `{wanted}`: {error}"),
        )
        .sent()
    }
}

impl<T, E, B> Future for Call<T, E, B>
where
    T: DeserializeOwned + 'static,
    E: Outcome,
{
    type Output = Result<T, E::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.poll_answer(cx));
        Poll::Ready(answer.unwrap_or_else(|error| Err(self.failed_with(error))))
    }
}

#[cold]
fn not_plain(what: &str) -> Error {
    Error::new(
        Kind::Misuse,
        format!(
            "{what} carries a stream or an object, which belongs to one connection: make the call \
             with a stub of a peer of its own"
        ),
    )
}

/// Whether a type is data, or has it at its end.
fn ends_in_data<T>() -> bool {
    let name = std::any::type_name::<T>().trim_end_matches([')', ',']);
    name.ends_with(std::any::type_name::<Data>())
}

impl<T, E, B> Drop for Call<T, E, B> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Ready(unsent) => unsent.done(),
            State::Sent(co) => self.po.link().release(co),
            State::Over => {}
        }
    }
}
