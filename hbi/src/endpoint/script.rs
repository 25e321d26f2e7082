//! A script with the values that are bound to its parameters.

use std::borrow::Cow;

use serde::Serialize;

use crate::{
    Error, Kind,
    script::{refuse_count, refuse_name},
    value::{Handles, Packed, pack_into},
};

/// A script and the values bound to its parameters; made by `hbi::script!`, or by hand.
///
/// ```
/// let script = hbi::Script::new("calc::add(a, 1)").bind("a", 2);
/// assert_eq!(script.source(), "calc::add(a, 1)");
/// ```
///
/// Where a conversation takes a script, a text is one, too.
#[derive(Debug)]
#[must_use]
pub struct Script {
    source: Cow<'static, str>,
    parameters: Vec<Cow<'static, str>>,
    values: Vec<Packed>,
    error: Option<Error>,
}

impl Script {
    /// A script without parameters.
    pub fn new(source: impl Into<Cow<'static, str>>) -> Self {
        let (parameters, values) = Default::default();
        Self {
            source: source.into(),
            parameters,
            values,
            error: None,
        }
    }

    /// Binds a value to a name of the script. Values travel beside the text, never in it.
    pub fn bind<T: Serialize + 'static>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: T,
    ) -> Self {
        let name = name.into();
        if let Some(why) = refuse_name(&name) {
            self.error.get_or_insert(Error::new(Kind::Misuse, why));
        }
        if self.parameters.contains(&name) {
            let text = format!("the parameter `{name}` is bound twice");
            self.error.get_or_insert(Error::new(Kind::Misuse, text));
        }
        let (mut bytes, mut handles) = (Vec::new(), Handles::new());
        match pack_into(&mut bytes, &mut handles, &value) {
            Ok(()) => {
                self.parameters.push(name);
                self.values.push(Packed::from_parts(bytes.into(), handles));
            }
            Err(error) => {
                self.error.get_or_insert(error.into());
            }
        }
        self
    }

    /// The text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text, the names of its parameters, their values as one array, and why it cannot be sent.
    pub(crate) fn into_parts(
        self,
    ) -> (
        Cow<'static, str>,
        Vec<Cow<'static, str>>,
        Packed,
        Option<Error>,
    ) {
        let Script {
            source,
            parameters,
            values,
            mut error,
        } = self;
        if let Some(why) = refuse_count(parameters.len()) {
            error.get_or_insert(Error::new(Kind::Misuse, why));
        }
        (source, parameters, Packed::array(values), error)
    }
}

impl From<&str> for Script {
    fn from(source: &str) -> Self {
        Self::new(source.to_owned())
    }
}

impl From<String> for Script {
    fn from(source: String) -> Self {
        Self::new(source)
    }
}
