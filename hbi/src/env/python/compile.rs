//! From the tree of a script to steps.

use std::collections::HashSet;

use crate::{
    Failure, Place,
    env::Bounds,
    script::python::{Expression, Kind, Operator, Part, Program, Statement, Target},
};

/// One step. Most take values off the stack and put one there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Name(Box<str>),
    Field(Box<str>),
    List(usize),
    Map(usize),
    /// Calls a name, which may be a path of fields, with so many arguments.
    Call {
        path: Box<[Box<str>]>,
        count: usize,
        spread: bool,
    },
    /// Calls a method of the value below the arguments.
    Method {
        name: Box<str>,
        count: usize,
        spread: bool,
    },
    Element,
    Slice {
        from: bool,
        to: bool,
    },
    Minus,
    Plus,
    Not,
    Operate(Operator),
    /// Compares the two topmost values, and leaves the last of them where that holds; elsewhere jumps
    /// with what came of it.
    Compare(Operator, usize),
    /// Joins so many values as text.
    Join(usize),
    Jump(usize),
    /// Takes the topmost value, and jumps where it is false.
    JumpUnless(usize),
    /// Jumps where the topmost value is (true) or is not (false), and leaves it; takes it elsewhere.
    JumpKeeping(bool, usize),
    /// A copy of the topmost value.
    Copy,
    Store(Box<str>),
    /// An element of what a name holds; the topmost values are the keys that lead to it, and stay.
    LoadElement(Box<str>, usize),
    /// Moves the topmost value below so many others.
    Lower(usize),
    /// Sets an element of what a name holds; so many keys lead to it, and the value lies below them.
    StoreElement(Box<str>, usize),
    /// The elements of the topmost value, the first on top.
    Spill(usize),
    /// The topmost value is the script's, so far.
    Result,
    /// The script has no value, so far.
    NoResult,
    /// Begins a loop over the topmost value.
    Begin(Box<str>),
    /// The next element, or a jump out of the loop.
    Next(usize),
    /// Ends the innermost loop.
    End,
    /// Ends the script.
    Return,
}

/// A script made ready to run.
#[derive(Debug)]
pub(crate) struct Code {
    pub(super) steps: Vec<(Step, Place)>,
    /// Names that are called, as paths, with how many arguments.
    calls: Vec<(String, usize)>,
    /// Whether the script's last statement is an expression that names what earlier calls gave.
    names_answers: bool,
    /// Where the calls of the last statement begin, where that is an expression.
    last_calls: usize,
    /// The name that is called last of all, where the last statement is just a call.
    pub(super) last_call: Option<String>,
    /// How deep expressions nest, where the script is just one.
    height: Option<usize>,
}

impl Code {
    /// Reads a script.
    ///
    /// # Errors
    /// When it is too long, nests too deep, or cannot be read.
    pub(crate) fn new(source: &str, bounds: &Bounds) -> Result<Self, Failure> {
        if source.len() > bounds.source {
            return Err(Failure::limit(
                "source",
                format_args!(
                    "a script of {} bytes, at most {}",
                    source.len(),
                    bounds.source
                ),
                "send less, or raise `Bounds::source` at the host",
            ));
        }
        Ok(Self::of(Program::parse(source, bounds.expression_depth)?))
    }

    /// A script that was read.
    pub(crate) fn of(program: Program) -> Self {
        let mut compiler = Compiler::default();
        let (mut names_answers, mut last_calls, mut last_call) = (false, None, None);
        let mut statements = program.statements;
        let height = match &statements[..] {
            [Statement::Expression(expression)] => Some(expression.height),
            _ => None,
        };
        let last = match statements.pop() {
            Some(Statement::Return(Some(value))) => Some(Statement::Expression(value)),
            last => last,
        };
        let mut answers = HashSet::new();
        for statement in statements {
            compiler.statement_of_script(statement, &mut answers);
        }
        if let Some(last) = last {
            let (calls, steps) = (compiler.calls.len(), compiler.steps.len());
            if let Statement::Expression(expression) = &last {
                last_call = match &expression.kind {
                    Kind::Call { callee, .. } => callee.path().map(|path| path.join("::")),
                    _ => None,
                };
            }
            let expression = matches!(last, Statement::Expression(_));
            compiler.statements(vec![last], None);
            if expression {
                last_calls = Some(calls);
                names_answers = compiler.steps[steps..]
                    .iter()
                    .any(|(step, _)| matches!(step, Step::Name(name) if answers.contains(&**name)));
            }
        }
        Self {
            steps: compiler.steps,
            last_calls: last_calls.unwrap_or(compiler.calls.len()),
            calls: compiler.calls,
            names_answers,
            last_call,
            height,
        }
    }

    /// How deep expressions nest, where the script is just one: each of its steps is taken once at most.
    pub(crate) fn height(&self) -> Option<usize> {
        self.height
    }

    /// How many steps it has.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Bytes of the strings that stand in it: of the longest, and of all.
    pub(crate) fn strings(&self) -> (usize, usize) {
        let lengths = self.steps.iter().map(|(step, _)| match step {
            Step::Text(text) => text.len(),
            Step::Bytes(bytes) => bytes.len(),
            _ => 0,
        });
        lengths.fold((0, 0), |(longest, all), len| (longest.max(len), all + len))
    }

    /// Whether steps of it may be taken more than once.
    pub(crate) fn loops(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|(step, _)| matches!(step, Step::Begin(_)))
    }

    /// Names that are called, with the number of their arguments.
    pub(crate) fn calls(&self) -> &[(String, usize)] {
        &self.calls
    }

    /// The calls in the last statement, where that is an expression.
    pub(crate) fn last_calls(&self) -> &[(String, usize)] {
        &self.calls[self.last_calls..]
    }

    /// Whether the last statement is an expression that names what earlier calls gave.
    pub(crate) fn names_answers(&self) -> bool {
        self.names_answers
    }

    /// What the last statement calls, where it is just one call.
    pub(crate) fn last_call(&self) -> Option<&str> {
        self.last_call.as_deref()
    }
}

#[derive(Default)]
struct Compiler {
    steps: Vec<(Step, Place)>,
    calls: Vec<(String, usize)>,
}

/// The jumps of a loop that wait for its ends to be known.
#[derive(Default)]
struct Loop {
    begin: usize,
    breaks: Vec<usize>,
}

impl Compiler {
    fn push(&mut self, step: Step, place: Place) -> usize {
        self.steps.push((step, place));
        self.steps.len() - 1
    }

    /// Lets a jump lead to what comes next.
    fn land(&mut self, jump: usize) {
        let here = self.steps.len();
        match &mut self.steps[jump].0 {
            Step::Jump(to)
            | Step::JumpUnless(to)
            | Step::JumpKeeping(_, to)
            | Step::Compare(_, to)
            | Step::Next(to) => *to = here,
            _ => unreachable!("only jumps are landed"),
        }
    }

    fn statements(&mut self, statements: Vec<Statement>, mut around: Option<&mut Loop>) {
        for statement in statements {
            self.statement(statement, around.as_deref_mut());
        }
    }

    /// A statement that is not the last; keeps the names that are assigned what calls give.
    fn statement_of_script(&mut self, statement: Statement, answers: &mut HashSet<String>) {
        let calls = self.calls.len();
        let name = match &statement {
            Statement::Assign(targets, _) => match &targets[..] {
                [Target::Name(name, _)] => Some(name.clone()),
                _ => None,
            },
            _ => None,
        };
        self.statement(statement, None);
        if self.calls.len() > calls {
            answers.extend(name);
        }
    }

    fn statement(&mut self, statement: Statement, around: Option<&mut Loop>) {
        const NOWHERE: Place = Place { line: 1, column: 1 };
        match statement {
            Statement::Expression(expression) => {
                let place = expression.place;
                self.expression(expression);
                self.push(Step::Result, place);
            }
            Statement::Assign(targets, value) => {
                let place = value.place;
                self.expression(value);
                let last = targets.len().saturating_sub(1);
                for (index, target) in targets.into_iter().enumerate() {
                    if index < last {
                        self.push(Step::Copy, place);
                    }
                    self.store(target);
                }
                self.push(Step::NoResult, place);
            }
            Statement::Change(target, operator, value) => {
                let place = value.place;
                match target {
                    Target::Name(name, at) => {
                        self.push(Step::Name(name.as_str().into()), at);
                        self.expression(value);
                        self.push(Step::Operate(operator), at);
                        self.push(Step::Store(name.into()), at);
                    }
                    Target::Element(name, keys, at) => {
                        let count = keys.len();
                        self.all(keys);
                        self.push(Step::LoadElement(name.as_str().into(), count), at);
                        self.expression(value);
                        self.push(Step::Operate(operator), at);
                        self.push(Step::Lower(count), at);
                        self.push(Step::StoreElement(name.into(), count), at);
                    }
                    Target::List(..) => unreachable!("the parser refuses it"),
                }
                self.push(Step::NoResult, place);
            }
            Statement::If(branches, otherwise) => {
                let mut ends = Vec::new();
                let mut around = around;
                for (condition, body) in branches {
                    let place = condition.place;
                    self.expression(condition);
                    let over = self.push(Step::JumpUnless(0), place);
                    self.statements(body, around.as_deref_mut());
                    ends.push(self.push(Step::Jump(0), place));
                    self.land(over);
                }
                self.statements(otherwise, around);
                for end in ends {
                    self.land(end);
                }
            }
            Statement::For(name, over, body) => {
                let place = over.place;
                self.expression(over);
                self.push(Step::Begin(name.into()), place);
                let begin = self.push(Step::Next(0), place);
                let mut inner = Loop {
                    begin,
                    breaks: Vec::new(),
                };
                self.statements(body, Some(&mut inner));
                self.push(Step::Jump(begin), place);
                self.land(begin);
                for leave in inner.breaks {
                    self.land(leave);
                }
                self.push(Step::End, place);
            }
            // the parser takes these within loops only
            Statement::Break => {
                let jump = self.push(Step::Jump(0), NOWHERE);
                if let Some(around) = around {
                    around.breaks.push(jump);
                }
            }
            Statement::Continue => {
                let begin = around.map_or(0, |around| around.begin);
                self.push(Step::Jump(begin), NOWHERE);
            }
            Statement::Return(value) => {
                let place = value.as_ref().map_or(NOWHERE, |value| value.place);
                match value {
                    Some(value) => {
                        self.expression(value);
                        self.push(Step::Result, place);
                    }
                    None => {
                        self.push(Step::NoResult, place);
                    }
                }
                self.push(Step::Return, place);
            }
        }
    }

    /// Stores the topmost value.
    fn store(&mut self, target: Target) {
        match target {
            Target::Name(name, place) => {
                self.push(Step::Store(name.into()), place);
            }
            Target::Element(name, keys, place) => {
                let count = keys.len();
                self.all(keys);
                self.push(Step::StoreElement(name.into(), count), place);
            }
            Target::List(targets, place) => {
                self.push(Step::Spill(targets.len()), place);
                for target in targets {
                    self.store(target);
                }
            }
        }
    }

    fn expression(&mut self, expression: Expression) {
        let Expression { kind, place, .. } = expression;
        let step = match kind {
            Kind::Nil => Step::Nil,
            Kind::Bool(b) => Step::Bool(b),
            Kind::Int(n) => Step::Int(n),
            Kind::Float(x) => Step::Float(x),
            Kind::Text(text) => Step::Text(text.into()),
            Kind::Bytes(bytes) => Step::Bytes(bytes.into()),
            Kind::Name(name) => Step::Name(name.into()),
            Kind::Field(of, name) => match of.kind {
                // `env.name`, as scripts of other peers write it
                Kind::Name(env) if env == "env" => Step::Name(name.into()),
                _ => {
                    self.expression(*of);
                    Step::Field(name.into())
                }
            },
            Kind::List(items) => {
                let count = items.len();
                self.all(items);
                Step::List(count)
            }
            Kind::Map(entries) => {
                let count = entries.len();
                for (key, value) in entries {
                    self.expression(key);
                    self.expression(value);
                }
                Step::Map(count)
            }
            Kind::Call {
                callee,
                arguments,
                spread,
            } => {
                let count = arguments.len();
                let path = callee.path();
                let path = path.map(|path| path.into_iter().map(Box::from).collect());
                match path {
                    Some(path) => {
                        self.all(arguments);
                        let path: Box<[Box<str>]> = path;
                        self.calls.push((path.join("::"), count));
                        Step::Call {
                            path,
                            count,
                            spread,
                        }
                    }
                    None => {
                        let Kind::Field(of, name) = callee.kind else {
                            unreachable!("the parser takes names and fields as what is called");
                        };
                        self.expression(*of);
                        self.all(arguments);
                        self.calls.push((name.clone(), count));
                        Step::Method {
                            name: name.into(),
                            count,
                            spread,
                        }
                    }
                }
            }
            Kind::Element(of, key) => {
                self.expression(*of);
                self.expression(*key);
                Step::Element
            }
            Kind::Slice(of, from, to) => {
                let (has_from, has_to) = (from.is_some(), to.is_some());
                self.expression(*of);
                self.all([from, to].into_iter().flatten().map(|bound| *bound));
                Step::Slice {
                    from: has_from,
                    to: has_to,
                }
            }
            Kind::Minus(of) => {
                self.expression(*of);
                Step::Minus
            }
            Kind::Plus(of) => {
                self.expression(*of);
                Step::Plus
            }
            Kind::Not(of) => {
                self.expression(*of);
                Step::Not
            }
            Kind::Chain(first, rest) => {
                self.expression(*first);
                for (operator, operand) in rest {
                    let place = operand.place;
                    self.expression(operand);
                    self.push(Step::Operate(operator), place);
                }
                return;
            }
            Kind::Compare(first, rest) => {
                self.expression(*first);
                let mut jumps = Vec::new();
                let last = rest.len().saturating_sub(1);
                for (index, (operator, operand)) in rest.into_iter().enumerate() {
                    self.expression(operand);
                    if index < last {
                        jumps.push(self.push(Step::Compare(operator, 0), place));
                    } else {
                        self.push(Step::Operate(operator), place);
                    }
                }
                for jump in jumps {
                    self.land(jump);
                }
                return;
            }
            Kind::And(all) => return self.lazily(all, false, place),
            Kind::Or(all) => return self.lazily(all, true, place),
            Kind::If {
                condition,
                then,
                otherwise,
            } => {
                self.expression(*condition);
                let unless = self.push(Step::JumpUnless(0), place);
                self.expression(*then);
                let end = self.push(Step::Jump(0), place);
                self.land(unless);
                self.expression(*otherwise);
                self.land(end);
                return;
            }
            Kind::Format(parts) => {
                let count = parts.len();
                for part in parts {
                    match part {
                        Part::Text(text) => {
                            self.push(Step::Text(text.into()), place);
                        }
                        Part::Value(value) => self.expression(value),
                    }
                }
                Step::Join(count)
            }
        };
        self.push(step, place);
    }

    fn all(&mut self, expressions: impl IntoIterator<Item = Expression>) {
        for expression in expressions {
            self.expression(expression);
        }
    }

    /// The first of `all` that decides, or the last.
    fn lazily(&mut self, all: Vec<Expression>, decides: bool, place: Place) {
        let mut jumps = Vec::with_capacity(all.len());
        let last = all.len().saturating_sub(1);
        for (index, expression) in all.into_iter().enumerate() {
            self.expression(expression);
            if index < last {
                jumps.push(self.push(Step::JumpKeeping(decides, 0), place));
            }
        }
        for jump in jumps {
            self.land(jump);
        }
    }
}
