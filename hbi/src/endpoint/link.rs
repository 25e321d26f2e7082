//! The borders of a connection: what it offers to endpoints, and what it asks of an environment.

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{sync::Notify, task::coop};

use super::{Hosted, Origin};
use crate::{
    Error, Failure,
    script::{StubText, Text},
    value::{Dialect, Handles, Packed, Short},
};

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The number of a conversation on its connection; what it means is the connection's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoNumber(pub u64);

/// How a connection writes scripts and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Texts with bound parameters, values as MessagePack.
    Bound,
    /// Source text with values as literals: the text wire, where raw data has no framing.
    Literal(Dialect),
}

/// Facts about a connection that do not change.
#[derive(Debug)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The peer's address, as far as the transport knows one.
    pub peer_address: String,
    /// This side's address, as far as the transport knows one.
    pub local_address: String,
    /// How scripts and values are written.
    pub encoding: Encoding,
    /// The deadline of calls that set none.
    pub deadline: Option<Duration>,
    /// How many conversations the peer may have open.
    pub conversations: u32,
    /// Whether each conversation has a `tracing` span.
    pub trace: bool,
    /// What the application knows of who the peer is.
    pub identity: Option<Arc<dyn Any + Send + Sync>>,
}

impl LinkInfo {
    /// Who the peer is, if that is known and of this type; see [`Peer::identity`](crate::Peer::identity).
    pub fn identity<I: 'static>(&self) -> Option<&I> {
        self.identity.as_deref()?.downcast_ref()
    }
}

/// A conversation to be opened.
#[derive(Debug)]
pub struct Request<'a> {
    /// The script that opens it, if it begins with one.
    pub text: Option<Text<'a>>,
    /// Whether the script's value is asked for.
    pub value: bool,
    /// Whether the conversation is this one call.
    pub call: bool,
    /// Whether nothing follows on the main sequence.
    pub last: bool,
    /// Whether the value of a call ends in data. Only looked at on the text wire, where its length
    /// stands in its place.
    pub data: bool,
    /// Arguments, a MessagePack array.
    pub arguments: &'a [u8],
    /// The handles in them; taken when the conversation is opened.
    pub handles: &'a mut Handles,
    /// Whether it has a place in the order of landings. Only looked at where openings may overtake
    /// each other.
    pub ordered: bool,
    /// When the poster gives up.
    pub deadline: Option<Instant>,
    /// Whether all that it calls may safely run twice. Only looked at where something could be sent
    /// before the peer has shown that it is there (0-RTT).
    pub idempotent: bool,
    /// Where it waits while the peer takes no more; to be kept until the request is done with.
    pub place: &'a mut Option<PlaceInLine>,
}

/// A place in the line of those who wait to open a conversation. Dropping it leaves the line, without
/// which who gave up would be kept there.
#[derive(Debug)]
pub struct PlaceInLine {
    link: Arc<dyn Link>,
    number: u64,
    deadline: Option<Instant>,
}

impl PlaceInLine {
    /// Waits in a place, if there is one already, or in a new one.
    pub fn wait(
        place: &mut Option<Self>,
        link: &Arc<dyn Link>,
        deadline: Option<Instant>,
        wait: impl FnOnce(Option<u64>) -> u64,
    ) {
        let number = wait(place.as_ref().map(|place| place.number));
        match place {
            Some(place) => place.number = number,
            None => {
                *place = Some(Self {
                    link: Arc::clone(link),
                    number,
                    deadline,
                });
            }
        }
    }

    /// When who waits gives up.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Drop for PlaceInLine {
    fn drop(&mut self) {
        self.link.leave(self.number);
    }
}

/// A message to be sent in an open conversation.
#[derive(Debug)]
pub enum Message {
    /// A value.
    Item(Packed),
    /// Raw bytes.
    Data(Bytes),
    /// A script.
    Script {
        /// Its source.
        source: String,
        /// Names of its parameters.
        parameters: Vec<std::borrow::Cow<'static, str>>,
        /// Whether its value is asked for.
        value: bool,
        /// Its arguments, a MessagePack array.
        arguments: Packed,
    },
}

/// What arrived in a conversation.
pub enum Received {
    /// A value.
    Item(Packed),
    /// Raw bytes.
    Data(Bytes),
    /// A script to land here.
    Script {
        /// What the environment made of it.
        prepared: Arc<dyn Prepared>,
        /// Whether its value is asked for.
        value: bool,
        /// Its arguments, a MessagePack array.
        arguments: Packed,
    },
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Received::Item(packed) => f.debug_tuple("Item").field(packed).finish(),
            Received::Data(bytes) => write!(f, "Data({} bytes)", bytes.len()),
            Received::Script { value, .. } => write!(f, "Script {{ value: {value} }}"),
        }
    }
}

impl Message {
    /// A script, whose value may be asked for.
    ///
    /// # Errors
    /// When a value bound to it cannot be packed, or a name is bound twice.
    pub fn script(script: super::Script, value: bool) -> Result<Self, Error> {
        let (source, parameters, arguments, error) = script.into_parts();
        match error {
            Some(error) => Err(error),
            None => Ok(Message::Script {
                source: source.into_owned(),
                parameters,
                value,
                arguments,
            }),
        }
    }
}

/// What a connection of any wire offers to the endpoints.
///
/// Nothing here runs an application's code while it holds a lock. `this` is always the connection
/// itself, for what it hands out.
pub trait Link: Send + Sync + fmt::Debug {
    /// Facts about the connection.
    fn info(&self) -> &LinkInfo;

    /// Opens a conversation that is one call of a stub's method and nothing beside, without handles
    /// in its arguments or a time limit of its own, and wakes this task once it is answered. `None`
    /// where the wire has no short way for that, or something is in it: [`Link::poll_open`] tells.
    fn call(&self, _text: &StubText, _arguments: &[u8], _cx: &mut Context<'_>) -> Option<CoNumber> {
        None
    }

    /// Opens a conversation; waits while the peer takes no more of them. Nested in a landing it
    /// fails instead of waiting, since it could wait for itself.
    fn poll_open(
        &self,
        this: &Arc<dyn Link>,
        request: &mut Request<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CoNumber, Error>>;

    /// Gives up a [`PlaceInLine`] in the line of those who wait for [`Link::poll_open`].
    fn leave(&self, place: u64);

    /// The answer of a call; the call is over then. A short one may be put into `short`, and is `None`
    /// then.
    fn poll_reply(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        short: &mut Short,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Packed>, Error>>;

    /// Hands over a message once the channel has room for it.
    fn poll_send(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        channel: u16,
        message: &mut Option<Message>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>>;

    /// Answers a hosted conversation with its value, and ends this side of it.
    fn answer(&self, this: &Arc<dyn Link>, co: CoNumber, answer: Packed);

    /// What arrives next on a channel; `None` at its end.
    fn poll_receive(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        channel: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, Error>>;

    /// So many bytes of raw data are wanted next from a channel. Only a wire on which raw data has no
    /// framing needs to be told.
    fn expect_data(&self, _co: CoNumber, _channel: u16, _bytes: u64) {}

    /// Ready once nobody wants more of a channel this side sends on.
    fn poll_stopped(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready once what was sent on a channel has left for the transport.
    fn poll_sent(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends a channel in good order; channel 0 is the main sequence.
    fn end(&self, co: CoNumber, channel: u16);

    /// Ends a channel with a failure; on channel 0 this side of the conversation.
    fn fail(&self, co: CoNumber, channel: u16, failure: Failure);

    /// Lets go of a stream that arrived.
    fn stop(&self, co: CoNumber, channel: u16);

    /// Lets go of a conversation: what the peer still sends in it is dropped, and it is told.
    fn release(&self, co: CoNumber);

    /// Lets go of a conversation without disturbing it: the peer carries on to its end.
    fn detach(&self, co: CoNumber);

    /// Tells the peer that one of its objects is held once less.
    fn release_object(&self, number: u32);

    /// Begins to close: goodbye to the peer, at most until the deadline.
    fn goodbye(&self, deadline: Duration);

    /// Whether the peer said goodbye, after which nothing lands there. On the text wire there is none.
    fn is_peer_leaving(&self) -> bool {
        false
    }

    /// Why the connection is gone, once it is.
    fn closed(&self) -> Option<Error>;

    /// Tells all that wait once the connection is gone, after [`Link::closed`] says so.
    fn on_closed(&self) -> &Notify;
}

/// A script that arrived in an open conversation, ready to land when its turn comes.
pub trait Prepared: Send + Sync {
    /// Lands it.
    fn land(
        self: Arc<Self>,
        arguments: Packed,
        hosted: Arc<Hosted>,
    ) -> BoxFuture<Result<Packed, Failure>>;
}

/// A conversation that the peer opened, on its way to the environment.
#[derive(Debug)]
pub struct Arrived<'a> {
    /// The number of the script.
    pub script: u32,
    /// Whether its value is asked for.
    pub value: bool,
    /// Arguments, a MessagePack array.
    pub arguments: &'a [u8],
    /// The handles in them.
    pub handles: Handles,
    /// Where it came from.
    pub origin: &'a Origin<'a>,
}

/// How far a landing came.
#[must_use]
pub enum Landed {
    /// Done: the value stands at the end of the output, its handles here.
    Done(Handles),
    /// Failed.
    Failed(Box<Failure>),
    /// It waits, or runs elsewhere.
    Waiting {
        /// Its outcome. Dropping it cancels the landing.
        future: BoxFuture<Result<Packed, Failure>>,
        /// The conversation as the landing sees it, if it asked for it.
        hosted: Option<Arc<Hosted>>,
    },
}

impl fmt::Debug for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Landed::Done(_) => "Done",
            Landed::Failed(_) => "Failed",
            Landed::Waiting { .. } => "Waiting",
        })
    }
}

/// A script of the text wire, ready to land.
pub struct Written {
    /// The script. Where it answers nothing its value is an empty literal.
    pub prepared: Arc<dyn Prepared>,
    /// Whether what it calls may take more off the wire.
    pub holds: Holds,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written")
            .field("holds", &self.holds)
            .finish_non_exhaustive()
    }
}

/// What a script may take off the wire behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Nothing.
    Nothing,
    /// Raw data, so many times.
    Data(u32),
    /// Whatever the method likes that takes the conversation.
    Conversation,
}

/// Runs landings outside of tokio's budget: each polls a method where it lands, and together they would
/// use up what the connection's task has for itself. Whoever lands many in a row bounds them.
pub(crate) fn unbudgeted<R>(land: impl FnOnce() -> R) -> R {
    let mut land = Some(land);
    let landed = poll_fn(|_| {
        land.take()
            .map_or(Poll::Pending, |land| Poll::Ready(land()))
    });
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(coop::unconstrained(landed)).poll(&mut cx) {
        Poll::Ready(landed) => landed,
        Poll::Pending => unreachable!("it is polled once"),
    }
}

/// What a connection asks of the hosting environment behind it. Owned by the connection's task.
pub trait Landing: Send {
    /// Whether a number has a text.
    fn is_defined(&self, number: u32) -> bool;

    /// The peer gave a number its text. Cheap, and runs no code of the application: the text is looked
    /// at when it lands first; one that does not compile answers each use with its error.
    fn define(&mut self, number: u32, parameters: &[&str], source: &str);

    /// Lands the script that opens a conversation. Its value is appended to `output`. A method is polled
    /// here: whoever lands does so outside of tokio's budget.
    fn land(&mut self, arrived: Arrived<'_>, output: &mut Vec<u8>) -> Landed;

    /// Readies a script that came in an open conversation. Cheap, as [`Landing::define`].
    fn prepare(&mut self, number: u32) -> Arc<dyn Prepared>;

    /// Whether a number still means the text that was made ready for it.
    fn means(&self, number: u32, prepared: &Arc<dyn Prepared>) -> bool;

    /// A landing for its effect: nobody waits for its failure, which is told where such are. Only of what
    /// was [prepared](Self::prepare): [`Landing::land`] sees to it itself.
    fn unheard(
        &self,
        landing: BoxFuture<Result<Packed, Failure>>,
    ) -> BoxFuture<Result<Packed, Failure>>;

    /// Reads a script of the text wire.
    ///
    /// # Errors
    /// When it cannot be read, or is over a bound.
    fn read(&mut self, source: &str) -> Result<Written, Failure>;

    /// Reads a script of the text wire of which only the value is wanted. Constructors that are not
    /// exposed make lists of their arguments.
    ///
    /// # Errors
    /// As [`Landing::read`].
    fn read_value(&mut self, source: &str) -> BoxFuture<Result<Arc<dyn Prepared>, Failure>>;

    /// The connection is up: whatever is to happen before anything lands.
    fn connected(&mut self) -> Option<BoxFuture<()>>;

    /// The connection is gone, and why. It may never have been up.
    fn disconnected(&mut self, reason: &Error);
}
