//! Handles of values on their way: from what they stand for to numbers on the wire, and back.

use std::sync::Arc;

use super::objects::Objects;
use crate::{
    Failure, Kind,
    endpoint::{Carried, CoNumber, Inlet, Link, Messages, Outlet, RemoteObject},
    value::Handles,
    wire::mux::{HandleKind, WireHandle},
};

/// Handles made ready to be sent: what stands on the wire, and the streams to be sent.
///
/// Nothing of it may be dropped while the connection's state is locked: what stands behind handles
/// is the application's, and lets go of connections itself.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) wire: Vec<WireHandle>,
    streams: Vec<(u32, Messages)>,
    rest: Vec<Carried>,
}

impl Outgoing {
    /// Takes handles and gives them numbers; streams get channels from `channel` on. Drops nothing.
    ///
    /// # Errors
    /// When an object of another connection is among them, or the peer holds too many objects.
    pub(super) fn take(
        &mut self,
        this: &Arc<dyn Link>,
        handles: &mut Handles,
        objects: &mut Objects,
        limit: u32,
        channel: u32,
    ) -> Result<(), Failure> {
        let taken = self.number(this, handles, objects, limit, channel);
        if taken.is_err() {
            self.give_back(objects);
            self.refuse(handles);
        }
        taken
    }

    /// Takes handles that are not sent, to be dropped by whoever drops this.
    pub(super) fn refuse(&mut self, handles: &mut Handles) {
        for index in 0..handles.len() as u32 {
            self.rest
                .extend(handles.take(index).and_then(Carried::from_handle));
        }
    }

    fn number(
        &mut self,
        this: &Arc<dyn Link>,
        handles: &mut Handles,
        objects: &mut Objects,
        limit: u32,
        mut channel: u32,
    ) -> Result<(), Failure> {
        for index in 0..handles.len() as u32 {
            let (kind, number) = match handles.take(index).and_then(Carried::from_handle) {
                Some(Carried::Stream(messages, _)) => {
                    self.streams.push((channel, messages));
                    channel += 1;
                    (HandleKind::Stream, channel - 1)
                }
                Some(Carried::Object(object)) => {
                    let number = objects.give(&object, limit);
                    self.rest.push(Carried::Object(object));
                    (HandleKind::Object, number?)
                }
                Some(Carried::Remote(object)) => {
                    let number = object.number();
                    let own = Arc::as_ptr(object.link()).cast::<()>() == Arc::as_ptr(this).cast();
                    self.rest.push(Carried::Remote(object));
                    if !own {
                        return Err(Failure::new(
                            Kind::Misuse,
                            "an object of another connection cannot be passed on: only its owner's \
                             peer can call it",
                        ));
                    }
                    (HandleKind::Returned, number)
                }
                Some(Carried::Missing(number)) => return Err(missing(number)),
                None => {
                    return Err(Failure::new(
                        Kind::Misuse,
                        "a stream or reactor of this value was taken before: each can be taken once",
                    ));
                }
            };
            self.wire.push(WireHandle { kind, number });
        }
        Ok(())
    }

    /// What was not sent holds no objects at the peer.
    pub(super) fn give_back(&mut self, objects: &mut Objects) {
        for handle in std::mem::take(&mut self.wire) {
            if handle.kind == HandleKind::Object
                && let Ok(Some(object)) = objects.take_back(handle.number, 1)
            {
                self.rest.push(Carried::Object(object));
            }
        }
    }

    /// What stands behind the handles, in the order of the wire, for a wire whose messages may
    /// overtake each other: `None` for streams.
    #[cfg(feature = "quic")]
    pub(super) fn take_rest(&mut self) -> Vec<Option<Carried>> {
        let mut rest = std::mem::take(&mut self.rest).into_iter();
        let carried = |handle: &WireHandle| match handle.kind {
            HandleKind::Stream => None,
            HandleKind::Object | HandleKind::Returned => rest.next(),
        };
        self.wire.iter().map(carried).collect()
    }

    /// Sends the streams, each in a task of its own.
    pub(super) fn start(self, this: &Arc<dyn Link>, co: CoNumber) {
        for (channel, messages) in self.streams {
            let outlet = Outlet::new(Arc::clone(this), co, channel as u16);
            tokio::spawn(messages.send_to(outlet));
        }
    }
}

/// What the handles of a payload that arrived stand for.
pub(super) fn arrived(
    this: &Arc<dyn Link>,
    co: CoNumber,
    wire: &[WireHandle],
    objects: &Objects,
) -> Handles {
    let mut handles = Handles::new();
    for handle in wire {
        let carried = match handle.kind {
            HandleKind::Stream => {
                let inlet = Inlet::new(Arc::clone(this), co, handle.number as u16);
                Carried::Stream(Messages::Arrived(inlet), None)
            }
            HandleKind::Object => {
                Carried::Remote(RemoteObject::new(Arc::clone(this), handle.number))
            }
            HandleKind::Returned => match objects.get(handle.number) {
                Some(object) => Carried::Object(object),
                None => Carried::Missing(handle.number),
            },
        };
        handles.push(Box::new(carried));
    }
    handles
}

fn missing(number: u32) -> Failure {
    Failure::new(
        Kind::Unknown,
        format!("object {number} was not given out, or was released"),
    )
}
