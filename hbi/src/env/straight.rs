//! Runs straight lines: calls one after the other, without an interpreter.

use std::sync::Arc;

use super::{Environment, Outcome, share::Share};
use crate::{
    Failure,
    endpoint::Hosted,
    script::{Callee, Operand, Straight},
    value::{Handles, Packed},
};

/// Runs a straight line. `arguments` is an array with as many elements as the text has parameters.
pub(super) async fn run(
    env: Arc<Environment>,
    straight: Arc<Straight>,
    arguments: Packed,
    hosted: Arc<Hosted>,
) -> Result<Packed, Failure> {
    let arguments = arguments.elements().map_err(Failure::from)?;
    let mut values = Values {
        env: &env,
        arguments,
        answers: Vec::with_capacity(straight.steps.len()),
        bytes: 0,
        share: env.pool().share(),
    };
    for step in &straight.steps {
        let place = |failure: Failure| failure.in_script(step.place);
        let kept = values.bytes;
        let mut operands = Vec::with_capacity(step.operands.len());
        for operand in &step.operands {
            let operand = values.get(operand).map_err(place)?;
            values.takes(&operand).map_err(place)?;
            operands.push(operand);
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
        Some(value) => values.get(value),
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
    share: Share,
}

impl Values<'_> {
    fn takes(&mut self, value: &Packed) -> Result<(), Failure> {
        self.bytes += value.bytes().len();
        let most = self.env.bounds.memory;
        if self.bytes > most {
            let raise = "raise `Bounds::memory` at the host";
            return Err(Failure::limit("memory", most, raise));
        }
        self.share.resize(self.bytes)
    }

    fn get(&mut self, operand: &Operand) -> Result<Packed, Failure> {
        match operand {
            Operand::Parameter(index) => Ok(self.arguments[*index].take()?),
            Operand::Step(index) => Ok(self.answers[*index].take()?),
            Operand::Literal(bytes) => Ok(Packed::from_parts(bytes.clone().into(), Handles::new())),
            Operand::Name(name) => self.env.get(name).ok_or_else(|| self.env.unknown(name)),
            Operand::List(operands) => {
                let mut values = Vec::with_capacity(operands.len());
                for operand in operands {
                    let value = self.get(operand)?;
                    self.takes(&value)?;
                    values.push(value);
                }
                Ok(Packed::array(values))
            }
            Operand::Field(of, name) => match &**of {
                // a field of a parameter or an answer leaves the rest of it where it is
                Operand::Parameter(index) => Ok(self.arguments[*index].field(name)?),
                Operand::Step(index) => Ok(self.answers[*index].field(name)?),
                of => Ok(self.get(of)?.field(name)?),
            },
        }
    }
}
