//! A request made ready: text, arguments, and where it goes.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    sync::{Mutex, MutexGuard},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    Arg, Arguments,
    compose::{self, nodes},
};
use crate::{
    Error, PostingEnd,
    endpoint::{CoNumber, Link, PlaceInLine, Request, deadline, now},
    script::{StubText, Text, excerpt},
};

thread_local! {
    /// The post that was done last, and others, for the thread's next calls: what is used again is warm.
    static LAST: Cell<Option<Box<Unsent>>> = const { Cell::new(None) };
    #[expect(clippy::vec_box, reason = "the boxes are what is used again")]
    static OTHERS: RefCell<Vec<Box<Unsent>>> = const { RefCell::new(Vec::new()) };
}

/// How many others are kept, and of how many bytes of arguments at most each is: with the last 128 KiB a
/// thread.
const KEPT: usize = 15;
const KEPT_BYTES: usize = 8 << 10;

/// A method as its stub calls it; generated code has one static for each.
#[derive(Debug)]
pub struct StubMethod {
    pub(super) path: &'static str,
    pub(super) text: StubText,
    pub(super) object_text: StubText,
    pub(super) name: &'static str,
    pub(super) parameters: usize,
    pub(super) idempotent: bool,
}

impl StubMethod {
    /// `path` names the method in scripts, `text` calls it at a peer (`calc::add(a0, a1)`),
    /// `object_text` at an object by reference (`a0.add(a1, a2)`).
    pub const fn new(
        path: &'static str,
        text: &'static str,
        object_text: &'static str,
        parameters: usize,
    ) -> Self {
        Self {
            path,
            text: StubText::new(text, parameters),
            object_text: StubText::new(object_text, parameters + 1),
            name: last_segment(path),
            parameters,
            idempotent: false,
        }
    }

    /// The same method, that may safely run twice.
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

const fn last_segment(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut at = bytes.len();
    while at > 0 && bytes[at - 1] != b':' {
        at -= 1;
    }
    match path.split_at_checked(at) {
        Some((_, name)) => name,
        None => path,
    }
}

/// A request that was not sent yet, where it stands until it is. It is in a box, as calls are handed on by
/// value; and behind a lock, as one of them may be made a part of others by reference.
#[derive(Debug)]
pub(super) struct Unsent(Mutex<Post>);

/// A request that was not sent yet.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) text: PostText,
    pub(super) arguments: Arguments,
    /// Where it waits to be sent, if it does.
    place: Option<PlaceInLine>,
}

#[derive(Debug)]
pub(super) enum PostText {
    /// A method of something exposed.
    Path(&'static StubMethod),
    /// A method of the first argument, an object.
    Method(&'static StubMethod),
    /// Any other text.
    Free(Box<FreeText>),
    /// A call that is a part of others: a text is made of all that it is made of, once it is sent.
    Shared(Box<Arg>),
}

#[derive(Debug)]
pub(super) struct FreeText {
    pub(super) source: Cow<'static, str>,
    pub(super) parameters: Vec<Cow<'static, str>>,
    /// Whether the same text is likely to be sent again.
    pub(super) again: bool,
    /// Whether all methods that it calls may safely run twice.
    pub(super) idempotent: bool,
    /// The time that its parts are given, from when it is sent.
    pub(super) within: Option<Duration>,
}

impl PostText {
    const NONE: Self = {
        static NONE: StubMethod = StubMethod::new("", "", "", 0);
        PostText::Path(&NONE)
    };

    /// A text that is sent once, for all that is known.
    pub(super) fn free(source: Cow<'static, str>, parameters: Vec<Cow<'static, str>>) -> Self {
        PostText::Free(Box::new(FreeText {
            source,
            parameters,
            again: false,
            idempotent: false,
            within: None,
        }))
    }

    /// Whether all methods that it calls may safely run twice.
    pub(super) fn is_idempotent(&self) -> bool {
        match self {
            PostText::Path(method) | PostText::Method(method) => method.idempotent,
            PostText::Free(text) => text.idempotent,
            PostText::Shared(arg) => nodes(arg).iter().all(|node| node.is_idempotent()),
        }
    }

    fn within(&self) -> Option<Duration> {
        match self {
            PostText::Free(text) => text.within,
            PostText::Path(_) | PostText::Method(_) | PostText::Shared(_) => None,
        }
    }

    /// Takes the text, where it is not a stub's.
    pub(super) fn take_free(&mut self) -> Option<Box<FreeText>> {
        match std::mem::replace(self, Self::NONE) {
            PostText::Free(text) => Some(text),
            PostText::Path(_) | PostText::Method(_) | PostText::Shared(_) => None,
        }
    }

    /// The text, where it is one already.
    #[inline]
    fn as_text(&self) -> Option<Text<'_>> {
        Some(match self {
            PostText::Path(method) => Text::Stub(&method.text),
            PostText::Method(method) => Text::Stub(&method.object_text),
            PostText::Free(text) => Text::Free {
                source: &text.source,
                parameters: &text.parameters,
                again: text.again,
            },
            PostText::Shared(_) => return None,
        })
    }
}

impl FreeText {
    /// The error, with the place in this text that it is about.
    pub(super) fn show(&self, error: Error) -> Error {
        error.with_excerpt(|place| excerpt(&self.source, place))
    }
}

/// How a request is posted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Data is expected behind the value, on a wire where that has to be known.
    pub(super) data: bool,
    pub(super) value: bool,
    pub(super) call: bool,
    pub(super) last: bool,
}

impl Unsent {
    pub(super) fn new(post: Post) -> Box<Self> {
        match Self::used() {
            Some(mut used) => {
                *used.post() = post;
                used
            }
            None => Box::new(Self(Mutex::new(post))),
        }
    }

    /// A call that is made of others.
    pub(super) fn shared(arg: Arg) -> Box<Self> {
        let mut unsent = Self::used().unwrap_or_else(Self::unused);
        unsent.post().text = PostText::Shared(Box::new(arg));
        unsent
    }

    /// A call of a method with so many arguments, none of which it has yet.
    #[inline]
    pub(super) fn method(text: PostText, arguments: usize, po: &PostingEnd) -> Box<Self> {
        let mut unsent = Self::used().unwrap_or_else(Self::unused);
        let post = unsent.post();
        post.text = text;
        post.arguments.begin(arguments, po);
        unsent
    }

    /// The request.
    #[inline]
    pub(super) fn post(&mut self) -> &mut Post {
        self.0.get_mut().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Post> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    #[inline(always)]
    fn used() -> Option<Box<Self>> {
        // there are none while the thread ends
        let last = LAST.try_with(Cell::take).ok().flatten();
        last.or_else(Self::other)
    }

    /// One that is not the last.
    #[cold]
    fn other() -> Option<Box<Self>> {
        let other = OTHERS.try_with(|others| others.borrow_mut().pop());
        other.ok().flatten()
    }

    #[cold]
    fn unused() -> Box<Self> {
        let post = Post::new(PostText::NONE, Arguments::default());
        Box::new(Self(Mutex::new(post)))
    }

    /// It was sent, or is none any more; another may be made of it.
    #[inline]
    pub(super) fn done(mut self: Box<Self>) {
        let post = self.post();
        if let PostText::Shared(_) = post.text {
            post.text = PostText::NONE;
        }
        let is_spent = post.place.is_none() && !matches!(post.text, PostText::Free(_));
        if !is_spent || !post.has_small_room() {
            return;
        }
        if let Ok(Some(other)) = LAST.try_with(|last| last.replace(Some(self))) {
            other.keep();
        }
    }

    /// Keeps one that is not the last.
    #[cold]
    fn keep(self: Box<Self>) {
        let _ = OTHERS.try_with(|others| {
            let mut others = others.borrow_mut();
            if others.len() < KEPT {
                others.push(self);
            }
        });
    }
}

impl Post {
    pub(super) fn new(text: PostText, arguments: Arguments) -> Self {
        Self {
            text,
            arguments,
            place: None,
        }
    }

    /// Whether it carries no stream and no object.
    #[cfg(feature = "balance")]
    pub(super) fn is_plain(&self) -> bool {
        match &self.text {
            PostText::Shared(arg) => nodes(arg).iter().all(|node| node.is_plain()),
            _ => !self.arguments.carries(),
        }
    }

    /// Whether its arguments are nothing but room for others, and not much of it.
    #[inline]
    fn has_small_room(&self) -> bool {
        self.arguments.is_bare() && self.arguments.bytes.capacity() <= KEPT_BYTES
    }

    /// Makes it a part of others. What it was is given back, to be dropped outside of the lock.
    pub(super) fn replace_by(&mut self, arg: Arg) -> Self {
        let arguments = match self.has_small_room() {
            true => std::mem::take(&mut self.arguments),
            false => Arguments::default(),
        };
        std::mem::replace(self, Self::new(PostText::Shared(Box::new(arg)), arguments))
    }

    /// Sends a call, if it is one of a stub's method and nothing beside, and the connection has a
    /// short way for it now; this task is woken once it is answered.
    #[inline]
    pub(super) fn call(&self, po: &PostingEnd, cx: &mut Context<'_>) -> Option<CoNumber> {
        let text = match self.text {
            PostText::Path(method) => &method.text,
            PostText::Method(_) | PostText::Free(_) | PostText::Shared(_) => return None,
        };
        if !self.arguments.is_bare() {
            return None;
        }
        po.link().call(text, &self.arguments.bytes, cx)
    }

    /// Waits no more where it waits to be sent: that was until another time.
    pub(super) fn leave_line(&mut self) {
        self.place = None;
    }

    /// When its time is over, which begins now.
    fn deadline(&self, link: &dyn Link, within: Option<Duration>) -> Option<Instant> {
        let within = [self.text.within(), within].into_iter().flatten().min();
        let own = within.and_then(|time| now().checked_add(time));
        deadline(link, own)
    }

    /// Opens a conversation with the request, in the manner that is asked for. Why it cannot be sent
    /// is told once.
    pub(super) fn poll_open(
        &mut self,
        po: &PostingEnd,
        manner: Manner,
        within: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CoNumber, Error>> {
        if let PostText::Shared(arg) = &self.text {
            *self = compose::compile(po, arg);
        }
        if let Some(error) = self.arguments.take_error() {
            return Poll::Ready(Err(error));
        }
        let link = po.link();
        let deadline = match &self.place {
            Some(place) => place.deadline(),
            None => self.deadline(&**link, within),
        };
        let Manner {
            value,
            call,
            last,
            data,
        } = manner;
        let (arguments, handles) = self.arguments.with_handles();
        let mut request = Request {
            text: self.text.as_text(),
            value,
            call,
            last,
            data,
            arguments,
            handles,
            ordered: po.is_ordered(),
            deadline,
            idempotent: self.text.is_idempotent(),
            place: &mut self.place,
        };
        link.poll_open(link, &mut request, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, value::Packed};

    #[test]
    fn what_is_done_is_kept_if_it_is_bare_and_small_and_few_are_there() {
        let kept = || {
            let last = LAST.take();
            let kept = usize::from(last.is_some()) + OTHERS.with_borrow(Vec::len);
            LAST.set(last);
            kept
        };
        let post = |text| {
            let arguments = Arguments::whole(Packed::array([]));
            Unsent::new(Post::new(text, arguments))
        };
        post(PostText::NONE).done();
        assert_eq!(kept(), 1);
        // the next is made of it
        let next = post(PostText::NONE);
        assert_eq!(kept(), 0);
        next.done();

        // what was a part of others is none of them any more
        Unsent::shared(Arg::value(Packed::nil())).done();
        let mut last = LAST.take().expect("it is kept");
        assert!(!matches!(last.post().text, PostText::Shared(_)));
        drop(last);

        let error = Error::new(Kind::Misuse, "no argument");
        Unsent::new(Post::new(PostText::NONE, Arguments::failed(error))).done();
        assert_eq!(kept(), 0, "it carried an error");
        post(PostText::free("1".into(), Vec::new())).done();
        assert_eq!(kept(), 0, "it had a text of its own");
        let mut large = post(PostText::NONE);
        large.post().arguments.bytes.reserve_exact(KEPT_BYTES + 1);
        large.done();
        assert_eq!(kept(), 0, "it was large");

        // nor does it stay beside what it is a part of
        let mut large = post(PostText::NONE);
        large.post().arguments.bytes.reserve_exact(KEPT_BYTES + 1);
        let old = large.post().replace_by(Arg::value(Packed::nil()));
        assert!(old.arguments.bytes.capacity() > KEPT_BYTES);
        assert_eq!(large.post().arguments.bytes.capacity(), 0);
        drop((old, large));

        let posts: Vec<_> = (0..2 * KEPT).map(|_| post(PostText::NONE)).collect();
        posts.into_iter().for_each(Unsent::done);
        assert_eq!(kept(), 1 + KEPT);
    }
}
