//! A request made ready: text, arguments, and where it goes.

use std::{
    borrow::Cow,
    task::{Context, Poll},
    time::Duration,
};

use super::Arguments;
use crate::{
    Error, PostingEnd,
    endpoint::{CoNumber, Request, default_deadline, now},
    script::{StubText, Text, excerpt},
    value::Handles,
};

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

/// A request that was not sent yet.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) text: PostText,
    pub(super) arguments: Arguments,
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
    #[inline]
    pub(super) fn take_free(&mut self) -> Option<Box<FreeText>> {
        static NONE: StubMethod = StubMethod::new("", "", "", 0);
        match self {
            PostText::Path(_) | PostText::Method(_) => None,
            PostText::Free(_) => match std::mem::replace(self, PostText::Path(&NONE)) {
                PostText::Free(text) => Some(text),
                PostText::Path(_) | PostText::Method(_) => None,
            },
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
    /// Sends a call, if it is one of a stub's method and nothing beside, and the connection has a
    /// short way for it now; this task is woken once it is answered.
    #[inline]
    pub(super) fn call(&self, po: &PostingEnd, cx: &mut Context<'_>) -> Option<CoNumber> {
        let text = match self.text {
            PostText::Path(method) => &method.text,
            PostText::Method(_) | PostText::Free(_) => return None,
        };
        if !self.arguments.is_plain() {
            return None;
        }
        po.link().call(text, &self.arguments.bytes, cx)
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
        let mut deadline = default_deadline(&**link);
        let within = match (self.text.within(), within) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        if let Some(at) = within.and_then(|time| now().checked_add(time)) {
            deadline = Some(deadline.map_or(at, |other| other.min(at)));
        }
        let Manner {
            value,
            call,
            last,
            data,
        } = manner;
        let mut none = Handles::new();
        let (arguments, handles) = self.arguments.with_handles(&mut none);
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
        };
        link.poll_open(link, &mut request, cx)
    }
}
