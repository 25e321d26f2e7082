//! A request made ready: text, arguments, and where it goes.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::Arguments;
use crate::{
    Error, PostingEnd,
    endpoint::{CoNumber, Link, PlaceInLine, Request, default_deadline, now},
    script::{StubText, Text, excerpt},
};

thread_local! {
    /// The post that was done last, and others, for the thread's next calls: what is used again is warm.
    static LAST: Cell<Option<Box<Post>>> = const { Cell::new(None) };
    #[expect(clippy::vec_box, reason = "the boxes are what is used again")]
    static OTHERS: RefCell<Vec<Box<Post>>> = const { RefCell::new(Vec::new()) };
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

/// A request that was not sent yet. It stands in a box, as calls are handed on by value.
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
        }
    }

    fn within(&self) -> Option<Duration> {
        match self {
            PostText::Path(_) | PostText::Method(_) => None,
            PostText::Free(text) => text.within,
        }
    }

    /// Takes the text, where it is not a stub's.
    pub(super) fn take_free(&mut self) -> Option<Box<FreeText>> {
        match std::mem::replace(self, Self::NONE) {
            PostText::Free(text) => Some(text),
            PostText::Path(_) | PostText::Method(_) => None,
        }
    }

    #[inline]
    fn as_text(&self) -> Text<'_> {
        match self {
            PostText::Path(method) => Text::Stub(&method.text),
            PostText::Method(method) => Text::Stub(&method.object_text),
            PostText::Free(text) => Text::Free {
                source: &text.source,
                parameters: &text.parameters,
                again: text.again,
            },
        }
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

impl Post {
    pub(super) fn new(text: PostText, arguments: Arguments) -> Box<Self> {
        let new = Self {
            text,
            arguments,
            place: None,
        };
        match Self::used() {
            Some(mut post) => {
                *post = new;
                post
            }
            None => Box::new(new),
        }
    }

    /// A call of a method with so many arguments, none of which it has yet.
    #[inline]
    pub(super) fn method(text: PostText, arguments: usize, po: &PostingEnd) -> Box<Self> {
        let mut post = Self::used().unwrap_or_else(Self::unused);
        post.text = text;
        post.arguments.begin(arguments, po);
        post
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
        Box::new(Self {
            text: PostText::NONE,
            arguments: Arguments::default(),
            place: None,
        })
    }

    /// It was sent, or is none any more; another may be made of it.
    #[inline]
    pub(super) fn done(self: Box<Self>) {
        let is_bare = self.arguments.is_bare()
            && self.place.is_none()
            && !matches!(self.text, PostText::Free(_));
        if !is_bare || self.arguments.bytes.capacity() > KEPT_BYTES {
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

    /// Sends a call, if it is one of a stub's method and nothing beside, and the connection has a
    /// short way for it now; this task is woken once it is answered.
    #[inline]
    pub(super) fn call(&self, po: &PostingEnd, cx: &mut Context<'_>) -> Option<CoNumber> {
        let text = match self.text {
            PostText::Path(method) => &method.text,
            PostText::Method(_) | PostText::Free(_) => return None,
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
        let default = default_deadline(link);
        let within = [self.text.within(), within].into_iter().flatten().min();
        let own = within.and_then(|time| now().checked_add(time));
        [default, own].into_iter().flatten().min()
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
            text: Some(self.text.as_text()),
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
        let post = |text| Post::new(text, Arguments::whole(Packed::array([])));
        post(PostText::NONE).done();
        assert_eq!(kept(), 1);
        // the next is made of it
        let next = post(PostText::NONE);
        assert_eq!(kept(), 0);
        next.done();

        let error = Error::new(Kind::Misuse, "no argument");
        Post::new(PostText::NONE, Arguments::failed(error)).done();
        assert_eq!(kept(), 0, "it carried an error");
        post(PostText::free("1".into(), Vec::new())).done();
        assert_eq!(kept(), 0, "it had a text of its own");
        let mut large = post(PostText::NONE);
        large.arguments.bytes.reserve_exact(KEPT_BYTES + 1);
        large.done();
        assert_eq!(kept(), 0, "it was large");

        let posts: Vec<_> = (0..2 * KEPT).map(|_| post(PostText::NONE)).collect();
        posts.into_iter().for_each(Post::done);
        assert_eq!(kept(), 1 + KEPT);
    }
}
