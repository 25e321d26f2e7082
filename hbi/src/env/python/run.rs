//! Running the steps of a script, within its bounds.

use std::{collections::HashMap, sync::Arc};

use super::{
    builtin,
    compile::{Code, Step},
    operate::{self, copy, fail, holds, kind_of, weight},
};
use crate::{
    Failure, Place,
    env::{Artifacts, Bounds, Outcome, environment::unknown, share::Share},
    script::python::{Operator, is_local},
    value::{Packed, Value},
};

/// Operations between chances for others to run.
const STEPS_PER_TURN: u64 = 4096;

/// What a call of a name means that nothing stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// An error.
    Refuse,
    /// A constructor that the host does not expose: the list of its arguments, which reads as a
    /// struct.
    Construct,
}

/// Hears what a script prints.
pub(crate) type Print = Box<dyn Fn(&str) + Send + Sync>;

impl Code {
    /// Runs the script to its value: that of its last statement, and nothing for an assignment. Where
    /// that is a call, it goes to `last`, if there is one. What it holds it takes of `share`.
    ///
    /// # Errors
    /// Those of its calls, its own, and the bound it hit, by name.
    pub(crate) async fn run(
        self: Arc<Self>,
        artifacts: Arc<dyn Artifacts>,
        last: Option<Arc<dyn Artifacts>>,
        bounds: Bounds,
        unknown: Unknown,
        print: Print,
        share: Share,
    ) -> Result<Packed, Failure> {
        let wall_clock = bounds.wall_clock;
        let mut run = Run {
            artifacts,
            last,
            bounds,
            unknown,
            print,
            share,
            stack: Vec::new(),
            loops: Vec::new(),
            locals: HashMap::new(),
            operations: 0,
            turn_ends: STEPS_PER_TURN,
            calls: 0,
            memory: 0,
            result: Value::Nil,
        };
        let running = async {
            run.steps(&self).await?;
            let result = std::mem::replace(&mut run.result, Value::Nil);
            Ok(result.pack()?)
        };
        // a script without calls, or whose calls are ready, never looks at the clock
        tokio::pin!(running);
        if let std::task::Poll::Ready(done) = futures_util::poll!(&mut running) {
            return done;
        }
        match tokio::time::timeout(wall_clock, running).await {
            Ok(done) => done,
            Err(_) => Err(limit(
                "wall_clock",
                format_args!("{wall_clock:?}"),
                "Bounds::wall_clock",
            )),
        }
    }
}

fn limit(name: &str, value: impl std::fmt::Display, raise: &str) -> Failure {
    Failure::limit(
        name,
        value,
        &format!("do less, or raise `{raise}` at the host"),
    )
}

/// A script while it runs.
struct Run {
    artifacts: Arc<dyn Artifacts>,
    /// What the call goes to that makes the script's value.
    last: Option<Arc<dyn Artifacts>>,
    bounds: Bounds,
    unknown: Unknown,
    print: Print,
    /// What it has of the connection's memory.
    share: Share,
    stack: Vec<Value>,
    loops: Vec<Each>,
    /// What names hold that are of the script alone.
    locals: HashMap<Box<str>, Value>,
    operations: u64,
    /// How many operations there are when others have a chance to run.
    turn_ends: u64,
    calls: u64,
    memory: usize,
    result: Value,
}

/// A value that a name of the script holds: nested no deeper than what travels, and copied at the
/// price of its length.
fn closed(value: Value) -> Result<Value, Failure> {
    Ok(match value {
        Value::List(_) | Value::Map(_) => Value::Packed(value.pack()?),
        plain => plain,
    })
}

/// A loop while it runs.
struct Each {
    name: Box<str>,
    rest: std::vec::IntoIter<Value>,
    current: Value,
}

impl Run {
    async fn steps(&mut self, code: &Code) -> Result<(), Failure> {
        let mut at = 0;
        while let Some((step, place)) = code.steps.get(at) {
            at += 1;
            if code.last_call.is_some() && at + 1 == code.steps.len() {
                // the call that makes the script's value: nothing but that comes behind it
                if let Some(last) = self.last.take() {
                    self.artifacts = last;
                }
            }
            self.spend(1)?;
            if self.operations >= self.turn_ends {
                self.turn_ends = self.operations + STEPS_PER_TURN;
                tokio::task::yield_now().await;
            }
            match step {
                Step::Call {
                    path,
                    count,
                    spread,
                } => {
                    let called = self.call(path, *count, *spread);
                    self.answer(called, *place).await?;
                }
                Step::Method {
                    name,
                    count,
                    spread,
                } => {
                    let called = self.method(name, *count, *spread);
                    self.answer(called, *place).await?;
                }
                Step::Return => return Ok(()),
                step => {
                    let next = self.step(step, at);
                    at = next.map_err(|failure| failure.in_script(*place))?;
                }
            }
        }
        Ok(())
    }

    fn spend(&mut self, operations: u64) -> Result<(), Failure> {
        self.operations += operations;
        if self.operations > self.bounds.operations {
            return Err(limit(
                "operations",
                self.bounds.operations,
                "Bounds::operations",
            ));
        }
        Ok(())
    }

    /// Puts a new value on the stack, counted.
    fn push(&mut self, value: Value) -> Result<(), Failure> {
        let bytes = match &value {
            Value::Text(text) => {
                if text.len() > self.bounds.string {
                    let most = self.bounds.string;
                    return Err(limit(
                        "string",
                        format_args!("{most} bytes"),
                        "Bounds::string",
                    ));
                }
                text.len()
            }
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => {
                if items.len() > self.bounds.array {
                    let most = self.bounds.array;
                    return Err(limit(
                        "array",
                        format_args!("{most} elements"),
                        "Bounds::array",
                    ));
                }
                items.len() * size_of::<Value>()
            }
            Value::Map(entries) => {
                if entries.len() > self.bounds.map {
                    let most = self.bounds.map;
                    return Err(limit("map", format_args!("{most} entries"), "Bounds::map"));
                }
                entries.len() * 2 * size_of::<Value>()
            }
            Value::Packed(packed) => packed.bytes().len(),
            _ => 0,
        };
        self.charge(bytes)?;
        // larger values cost more to make
        self.spend(bytes as u64 / 256)?;
        self.stack.push(value);
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.bounds.memory {
            let most = self.bounds.memory;
            return Err(limit(
                "memory",
                format_args!("{most} bytes"),
                "Bounds::memory",
            ));
        }
        self.share.resize(self.memory)
    }

    /// The topmost value, as it is.
    fn pop(&mut self) -> Value {
        // the compiler leaves a value for each step that takes one
        self.stack.pop().unwrap_or(Value::Nil)
    }

    /// The topmost value, to be looked into.
    fn look(&mut self) -> Result<Value, Failure> {
        match self.pop() {
            Value::Packed(packed) => self.unpack(packed),
            value => Ok(value),
        }
    }

    fn unpack(&mut self, packed: Packed) -> Result<Value, Failure> {
        // taken apart it is many times as large
        self.charge(operate::taken_apart(&packed))?;
        Ok(Value::unpack(packed)?)
    }

    /// The same value, taken apart to its last element.
    fn open(&mut self, value: Value) -> Result<Value, Failure> {
        Ok(match value {
            Value::Packed(packed) => self.unpack(packed)?,
            Value::List(mut items) => {
                for item in &mut items {
                    self.open_in_place(item)?;
                }
                Value::List(items)
            }
            Value::Map(mut entries) => {
                for (key, value) in &mut entries {
                    self.open_in_place(key)?;
                    self.open_in_place(value)?;
                }
                Value::Map(entries)
            }
            value => value,
        })
    }

    fn open_in_place(&mut self, value: &mut Value) -> Result<(), Failure> {
        *value = self.open(std::mem::replace(value, Value::Nil))?;
        Ok(())
    }

    fn step(&mut self, step: &Step, at: usize) -> Result<usize, Failure> {
        match step {
            Step::Nil => self.stack.push(Value::Nil),
            Step::Bool(b) => self.stack.push(Value::Bool(*b)),
            Step::Int(n) => self.stack.push(Value::Int(*n)),
            Step::Float(x) => self.stack.push(Value::Float(*x)),
            Step::Text(text) => self.push(Value::Text(text.to_string()))?,
            Step::Bytes(bytes) => self.push(Value::Bytes(bytes.to_vec()))?,
            Step::Name(name) => {
                let value = self.name(name)?;
                self.push(value)?;
            }
            Step::Field(name) => {
                let value = match self.look()? {
                    of @ Value::Map(_) => operate::element(of, &Value::Text(name.to_string()))?,
                    other => {
                        let of = kind_of(&other);
                        return Err(fail(format!("{of} has no field `{name}`")));
                    }
                };
                self.push(value)?;
            }
            Step::List(count) => {
                let items = self.stack.split_off(self.stack.len() - count);
                self.push(Value::List(items))?;
            }
            Step::Map(count) => self.map(*count)?,
            Step::Element => {
                let key = self.look()?;
                let of = self.look()?;
                let value = operate::element(of, &key)?;
                self.push(value)?;
            }
            Step::Slice { from, to } => {
                let to = if *to { Some(self.look()?) } else { None };
                let from = if *from { Some(self.look()?) } else { None };
                let of = self.look()?;
                let value = operate::slice(of, from, to)?;
                self.push(value)?;
            }
            Step::Minus | Step::Plus => {
                let value = self.look()?;
                self.stack
                    .push(operate::sign(value, matches!(step, Step::Minus))?);
            }
            Step::Not => {
                let value = self.look()?;
                self.stack.push(Value::Bool(!holds(&value)));
            }
            Step::Operate(operator) => {
                let right = self.look()?;
                let left = self.look()?;
                let value = self.operate(*operator, left, right)?;
                self.push(value)?;
            }
            Step::Compare(operator, out) => {
                let mut right = self.look()?;
                let left = self.look()?;
                self.charge(weight(&right))?;
                let compared = copy(&mut right)?;
                let value = self.operate(*operator, left, compared)?;
                if !holds(&value) {
                    self.stack.push(value);
                    return Ok(*out);
                }
                self.stack.push(right);
            }
            Step::Join(count) => {
                let mut text = String::new();
                let parts = self.stack.split_off(self.stack.len() - count);
                for part in parts {
                    operate::shown(&self.open(part)?, &mut text);
                }
                self.push(Value::Text(text))?;
            }
            Step::Jump(to) => return Ok(*to),
            Step::JumpUnless(to) => {
                if !holds(&self.look()?) {
                    return Ok(*to);
                }
            }
            Step::JumpKeeping(when, to) => {
                let value = self.look()?;
                if holds(&value) == *when {
                    self.stack.push(value);
                    return Ok(*to);
                }
            }
            Step::Copy => {
                let mut value = self.look()?;
                self.charge(weight(&value))?;
                let copied = copy(&mut value)?;
                self.stack.push(value);
                self.push(copied)?;
            }
            Step::Store(name) => {
                let value = self.pop();
                self.store(name, value)?;
            }
            Step::LoadElement(name, count) => self.load_element(name, *count)?,
            Step::Lower(count) => {
                let value = self.pop();
                self.stack.insert(self.stack.len() - count, value);
            }
            Step::StoreElement(name, count) => self.store_element(name, *count)?,
            Step::Spill(count) => {
                let items = match self.look()? {
                    Value::List(items) => items,
                    other => {
                        let text = format!("{} is no list of {count} values", kind_of(&other));
                        return Err(fail(text));
                    }
                };
                if items.len() != *count {
                    let text = format!("{} values for {count} names", items.len());
                    return Err(fail(text));
                }
                self.stack.extend(items.into_iter().rev());
            }
            Step::Result => self.result = self.pop(),
            Step::NoResult => self.result = Value::Nil,
            Step::Begin(name) => {
                let items = match self.look()? {
                    Value::List(items) => items,
                    Value::Map(entries) => entries.into_iter().map(|(key, _)| key).collect(),
                    other => {
                        let text = format!("{} has no elements to go through", kind_of(&other));
                        return Err(fail(text));
                    }
                };
                self.loops.push(Each {
                    name: name.clone(),
                    rest: items.into_iter(),
                    current: Value::Nil,
                });
            }
            Step::Next(out) => {
                let next = self.loops.last_mut().and_then(|each| each.rest.next());
                match (self.loops.last_mut(), next) {
                    (Some(each), Some(next)) => each.current = closed(next)?,
                    _ => return Ok(*out),
                }
            }
            Step::End => drop(self.loops.pop()),
            Step::Call { .. } | Step::Method { .. } | Step::Return => {}
        }
        Ok(at)
    }

    fn operate(&mut self, operator: Operator, left: Value, right: Value) -> Result<Value, Failure> {
        let (left, right) = (self.open(left)?, self.open(right)?);
        let size = operate::size_of_result(operator, &left, &right);
        let text = matches!(left, Value::Text(_)) || matches!(right, Value::Text(_));
        let (most, name, unit, raise) = if text {
            (self.bounds.string, "string", "bytes", "Bounds::string")
        } else {
            (self.bounds.array, "array", "elements", "Bounds::array")
        };
        if size > most {
            return Err(limit(name, format_args!("{most} {unit}"), raise));
        }
        // elements are copied, and looked at, with all that is in them
        match (operator, &left, &right) {
            (Operator::Multiply, Value::List(items), Value::Int(n))
            | (Operator::Multiply, Value::Int(n), Value::List(items)) => {
                let once: usize = items.iter().map(weight).sum();
                self.charge(once.saturating_mul(operate::times(*n)))?;
            }
            _ => self.spend(operate::effort(operator, &left, &right))?,
        }
        operate::operate(operator, left, right)
    }

    fn map(&mut self, count: usize) -> Result<(), Failure> {
        let flat = self.stack.split_off(self.stack.len() - 2 * count);
        let mut flat = flat.into_iter();
        let mut entries = Vec::with_capacity(count);
        while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
            entries.push((self.open(key)?, value));
        }
        self.push(Value::Map(operate::entries(entries)?))
    }

    /// What a name holds.
    fn name(&mut self, name: &str) -> Result<Value, Failure> {
        self.held(name)?.ok_or_else(|| self.missing(name))
    }

    /// What a name holds, where it holds anything.
    fn held(&mut self, name: &str) -> Result<Option<Value>, Failure> {
        let mut loops = self.loops.iter_mut().rev();
        let each = loops.find(|each| *each.name == *name);
        let own = each.map(|each| &mut each.current);
        match own.or_else(|| self.locals.get_mut(name)) {
            Some(value) => copy(value).map(Some),
            None => Ok(self.artifacts.get(name).map(Value::Packed)),
        }
    }

    fn missing(&self, name: &str) -> Failure {
        unknown(name, &self.artifacts.resembling(name))
    }

    fn store(&mut self, name: &str, value: Value) -> Result<(), Failure> {
        if let Some(each) = self.loops.iter_mut().rev().find(|each| *each.name == *name) {
            each.current = closed(value)?;
            return Ok(());
        }
        if is_local(name) {
            self.locals.insert(name.into(), closed(value)?);
            return Ok(());
        }
        self.artifacts.set(name, value.pack()?)
    }

    /// Puts an element on the stack, above the keys that lead to it.
    fn load_element(&mut self, name: &str, count: usize) -> Result<(), Failure> {
        let mut keys = self.stack.split_off(self.stack.len() - count);
        let mut found = self.name(name)?;
        for key in &mut keys {
            self.open_in_place(key)?;
            self.push(found)?;
            found = operate::element(self.look()?, key)?;
        }
        self.stack.extend(keys);
        self.push(found)
    }

    fn store_element(&mut self, name: &str, count: usize) -> Result<(), Failure> {
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            keys.push(self.look()?);
        }
        let value = self.pop();
        let found = self.name(name)?;
        self.push(found)?;
        let mut whole = self.look()?;
        let mut part = &mut whole;
        while let Some(key) = keys.pop() {
            part = operate::element_mut(part, key, keys.is_empty())?;
        }
        *part = value;
        // checked as a whole
        self.push(whole)?;
        let whole = self.pop();
        self.store(name, whole)
    }

    /// The topmost values as arguments.
    fn arguments(&mut self, count: usize, spread: bool) -> Result<Vec<Value>, Failure> {
        let last = if spread { Some(self.look()?) } else { None };
        let count = count - usize::from(spread);
        let mut arguments = self.stack.split_off(self.stack.len() - count);
        match last {
            Some(Value::List(items)) => arguments.extend(items),
            Some(other) => {
                let text = format!("{} is no list of arguments", kind_of(&other));
                return Err(fail(text));
            }
            None => {}
        }
        self.calls += 1;
        if self.calls > self.bounds.calls {
            return Err(limit("calls", self.bounds.calls, "Bounds::calls"));
        }
        Ok(arguments)
    }

    fn call(&mut self, path: &[Box<str>], count: usize, spread: bool) -> Result<Called, Failure> {
        let mut arguments = self.arguments(count, spread)?;
        let name = path.join("::");
        if self.artifacts.has_function(&name) {
            return Ok(Called::Outcome(
                self.artifacts.call(&name, packed(arguments)?),
            ));
        }
        if let [fields @ .., method] = path {
            if let [first, fields @ ..] = fields {
                // a method of what a name holds
                if let Some(value) = self.held(first)? {
                    self.stack.push(value);
                    for field in fields {
                        self.step(&Step::Field(field.clone()), 0)?;
                    }
                    let object = self.pop().pack()?;
                    let arguments = packed(arguments)?;
                    return Ok(Called::Outcome(
                        self.artifacts.call_method(object, method, arguments),
                    ));
                }
            } else {
                let mut looked = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    looked.push(self.open(argument)?);
                }
                let called = builtin::call(method, &mut looked, &self.bounds, &*self.print);
                if let Some(value) = called {
                    return value.map(Called::Value);
                }
                arguments = looked;
            }
        }
        match self.unknown {
            Unknown::Refuse => Err(self.missing(&name)),
            Unknown::Construct => Ok(Called::Value(Value::List(arguments))),
        }
    }

    fn method(&mut self, name: &str, count: usize, spread: bool) -> Result<Called, Failure> {
        let arguments = packed(self.arguments(count, spread)?)?;
        let object = self.pop().pack()?;
        Ok(Called::Outcome(
            self.artifacts.call_method(object, name, arguments),
        ))
    }

    /// Waits for what a call answers, and puts it on the stack.
    async fn answer(
        &mut self,
        called: Result<Called, Failure>,
        place: Place,
    ) -> Result<(), Failure> {
        let answer = match called {
            Ok(Called::Value(value)) => Ok(value),
            Ok(Called::Outcome(Outcome::Ready(answer))) => answer.map(Value::Packed),
            Ok(Called::Outcome(Outcome::Waiting(future))) => future.await.map(Value::Packed),
            Err(failure) => Err(failure),
        };
        answer
            .and_then(|value| self.push(value))
            .map_err(|failure| failure.in_script(place))
    }
}

/// How far a call came.
enum Called {
    Value(Value),
    Outcome(Outcome),
}

fn packed(arguments: Vec<Value>) -> Result<Vec<Packed>, Failure> {
    let packed: Result<Vec<_>, _> = arguments.into_iter().map(Value::pack).collect();
    Ok(packed?)
}
