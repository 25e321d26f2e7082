//! Runs straight lines: calls one after the other, without an interpreter.

use std::{future::Future, pin::Pin, sync::Arc};

use super::{Bounds, Environment, Outcome, share::Share, sources::Taken};
use crate::{
    Failure,
    endpoint::Hosted,
    script::{Callee, Operand, Straight},
    value::{Handles, Packed},
};

/// Bytes that are copied, or looked through for a field, from one turn of the thread to the next: it
/// takes at most a millisecond.
const TURN: usize = 256 << 10;

/// What a call takes of that.
const CALL: usize = 2 << 10;

/// As many bytes count as one operation.
const OPERATION: usize = 1 << 10;

/// A straight line, as long as anything has it.
pub(super) struct Line {
    straight: Straight,
    _taken: Taken,
}

impl Line {
    pub(super) fn new(straight: Straight, _taken: Taken) -> Self {
        Self { straight, _taken }
    }
}

/// Runs a straight line. `arguments` is an array with as many elements as the text has parameters.
pub(super) async fn run(
    env: Arc<Environment>,
    line: Arc<Line>,
    arguments: Packed,
    hosted: Arc<Hosted>,
) -> Result<Packed, Failure> {
    let straight = &line.straight;
    let arguments = arguments.elements().map_err(Failure::from)?;
    let mut values = Values {
        env: &env,
        arguments,
        answers: Vec::with_capacity(straight.steps.len()),
        bytes: 0,
        work: 0,
        turn: TURN,
        share: env.pool().share(),
    };
    for step in &straight.steps {
        let place = |failure: Failure| failure.in_script(step.place);
        values.turn = values.turn.saturating_sub(CALL);
        if values.work >= values.turn {
            values.take_turns().await.map_err(place)?;
        }
        let kept = values.bytes;
        let mut operands = Vec::with_capacity(step.operands.len());
        for operand in &step.operands {
            // without a future of its own, which would cost as much as the rest
            let value = match values.at_hand(operand) {
                Some(value) => value,
                None => values.made(operand).await,
            };
            let value = value.map_err(place)?;
            values.takes(&value).map_err(place)?;
            operands.push(value);
            if values.work >= values.turn {
                values.take_turns().await.map_err(place)?;
            }
        }
        let outcome = match &step.callee {
            Callee::Path(name) => env.call(name, Packed::array(operands), &hosted),
            Callee::Method(name) => {
                let object = operands.remove(0);
                env.call_method(object, name, Packed::array(operands), &hosted)
            }
        };
        let answer = match outcome {
            Outcome::Ready(answer) => answer,
            Outcome::Waiting(future) => future.await,
        };
        let answer = answer.map_err(place)?;
        values.bytes = kept;
        values.takes(&answer).map_err(place)?;
        values.answers.push(answer);
    }
    match &straight.value {
        Some(value) => values.value(value).await,
        None => Ok(Packed::nil()),
    }
}

/// What the operands of a straight line stand for, while it runs.
struct Values<'a> {
    env: &'a Environment,
    arguments: Vec<Packed>,
    answers: Vec<Packed>,
    /// Bytes of the answers, and of what is being made of them.
    bytes: usize,
    /// Bytes that were copied or looked through, in all.
    work: usize,
    /// How many there are when others have their turn next.
    turn: usize,
    share: Share,
}

type Made<'a> = Pin<Box<dyn Future<Output = Result<Packed, Failure>> + Send + 'a>>;

impl Values<'_> {
    fn takes(&mut self, value: &Packed) -> Result<(), Failure> {
        let bytes = value.bytes().len();
        self.bytes += bytes;
        self.work += bytes;
        let most = self.env.bounds.memory;
        if self.bytes > most {
            let raise = "raise `Bounds::memory` at the host";
            return Err(Failure::limit("memory", most, raise));
        }
        self.share.resize(self.bytes)
    }

    async fn value(&mut self, operand: &Operand) -> Result<Packed, Failure> {
        match self.at_hand(operand) {
            Some(value) => value,
            None => self.made(operand).await,
        }
    }

    /// Lets others have the thread.
    async fn take_turns(&mut self) -> Result<(), Failure> {
        let most = self.env.bounds.operations;
        if (self.work / OPERATION) as u64 > most {
            return Err(Failure::limit(
                "operations",
                format_args!("{most}, of {OPERATION} bytes copied or looked through each"),
                "raise `Bounds::operations` at the host",
            ));
        }
        self.turn = self.work + TURN;
        tokio::task::yield_now().await;
        Ok(())
    }

    /// The value of an operand that nothing has to be made for: of most.
    #[inline(always)]
    fn at_hand(&mut self, operand: &Operand) -> Option<Result<Packed, Failure>> {
        Some(match operand {
            Operand::Parameter(index) => self.arguments[*index].take().map_err(Failure::from),
            Operand::Step(index) => self.answers[*index].take().map_err(Failure::from),
            Operand::Literal(bytes) => Ok(Packed::from_parts(bytes.clone().into(), Handles::new())),
            Operand::Name(name) => self.env.exposed(name).ok_or_else(|| self.env.unknown(name)),
            Operand::Field(of, name) => {
                // a field of a parameter or an answer leaves the rest of it where it is
                let of = match **of {
                    Operand::Parameter(index) => &mut self.arguments[index],
                    Operand::Step(index) => &mut self.answers[index],
                    _ => return None,
                };
                field(of, name, &self.env.bounds, &mut self.work)
            }
            Operand::List(_) => return None,
        })
    }

    /// The value of an operand that consists of others, which may nest.
    fn made<'a>(&'a mut self, operand: &'a Operand) -> Made<'a> {
        Box::pin(async move {
            match operand {
                Operand::List(operands) => {
                    let mut values = Vec::with_capacity(operands.len());
                    for operand in operands {
                        let value = self.value(operand).await?;
                        self.takes(&value)?;
                        values.push(value);
                        if self.work >= self.turn {
                            self.take_turns().await?;
                        }
                    }
                    Ok(Packed::array(values))
                }
                Operand::Field(of, name) => {
                    let mut of = self.value(of).await?;
                    if self.work >= self.turn {
                        self.take_turns().await?;
                    }
                    field(&mut of, name, &self.env.bounds, &mut self.work)
                }
                operand => self.value(operand).await,
            }
        })
    }
}

/// The field of a value; `work` grows by the bytes that are looked through for it.
fn field(
    of: &mut Packed,
    name: &str,
    bounds: &Bounds,
    work: &mut usize,
) -> Result<Packed, Failure> {
    #[cfg(feature = "script")]
    if !of.is_map() && of.handles().is_empty() {
        /// What it costs to have the interpreter look, as bytes that are looked through.
        const LOOK: usize = 16 << 10;
        *work += LOOK + 16 * of.bytes().len();
        return super::script::property(of.take()?, name, bounds);
    }
    #[cfg(not(feature = "script"))]
    let _ = bounds;
    let (field, seen) = of.find_field(name)?;
    *work += seen;
    Ok(field)
}
