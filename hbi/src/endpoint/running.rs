//! Runs a hosted conversation that is more than its opening: lands its scripts in order, answers,
//! and ends it.

use std::{future::poll_fn, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;

use super::{BoxFuture, Current, Hosted, Message, Received};
use crate::{Failure, Kind, value::Packed};

/// Runs a hosted conversation to its end.
///
/// `opening` is the outcome of the script that opened it, if it had one; `value` whether that was
/// asked for; `last` whether nothing follows.
pub async fn run_conversation(
    hosted: Arc<Hosted>,
    opening: Option<BoxFuture<Result<Packed, Failure>>>,
    value: bool,
    last: bool,
) {
    let ran = caught(run(&hosted, opening, value, last)).await;
    let failure = ran.err();
    let (link, co) = (hosted.link(), hosted.number());
    if hosted.is_taken() {
        return hosted.landed(failure);
    }
    match failure {
        Some(failure) => link.fail(co, 0, failure),
        None => link.end(co, 0),
    }
    link.detach(co);
}

/// What lands, its panics made failures, so that whoever waits is told. Those of methods are caught where
/// they run; others are of what is beside: of how an answer is dropped, or a future.
pub(crate) async fn caught<T>(
    landing: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let landed = AssertUnwindSafe(landing).catch_unwind().await;
    landed.unwrap_or_else(|_| {
        let text = "hosted code panicked beside its method: the host's log says how";
        Err(Failure::new(Kind::Panic, text))
    })
}

async fn run(
    hosted: &Arc<Hosted>,
    opening: Option<BoxFuture<Result<Packed, Failure>>>,
    value: bool,
    last: bool,
) -> Result<(), Failure> {
    if let Some(opening) = opening {
        let answer = hosted.current().carry(opening).await?;
        if hosted.is_taken() {
            return Ok(());
        }
        if value && last {
            hosted.link().answer(hosted.link(), hosted.number(), answer);
        } else if value {
            send(hosted, answer).await?;
        }
    }
    if last {
        return Ok(());
    }
    loop {
        let link = hosted.link();
        let next = poll_fn(|cx| link.poll_receive(link, hosted.number(), 0, cx)).await;
        match next.map_err(Failure::from)? {
            Some(Received::Script {
                prepared,
                value,
                arguments,
            }) => {
                let landing = prepared.land(arguments, Arc::clone(hosted));
                let answer = hosted.current().carry(landing).await?;
                if hosted.is_taken() {
                    return Ok(());
                }
                if value {
                    send(hosted, answer).await?;
                }
            }
            Some(Received::Data(bytes)) if bytes.is_empty() => {}
            Some(_) => {
                return Err(Failure::new(
                    Kind::Value,
                    "an object or raw data that no hosted code received: send a script first whose \
                     method takes the conversation (`#[hbi(converse)]`)",
                ));
            }
            None => return Ok(()),
        }
    }
}

async fn send(hosted: &Hosted, answer: Packed) -> Result<(), Failure> {
    let link = hosted.link();
    let mut message = Some(Message::Item(answer));
    poll_fn(|cx| link.poll_send(link, hosted.number(), 0, &mut message, cx))
        .await
        .map_err(Failure::from)
}

impl Current {
    /// What a conversation that arrived passes on to the calls made while it lands.
    pub fn arrived(
        deadline: Option<std::time::Instant>,
        depth: u8,
        trace: Option<[u8; 25]>,
    ) -> Self {
        Self {
            deadline,
            depth: depth.saturating_add(1),
            trace,
        }
    }
}
