//! Free scripts with bound parameters.

use std::{borrow::Cow, fmt, future::IntoFuture, marker::PhantomData, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Call,
    post::{Packing, Post, PostText},
};
use crate::{
    Error, Kind, PostingEnd,
    value::{Handles, Packed, pack_into},
};

/// A script and the values bound to its parameters; made by `hbi::script!`, or by hand.
///
/// ```
/// let script = hbi::Script::new("calc::add(a, 1)").bind("a", 2);
/// assert_eq!(script.source(), "calc::add(a, 1)");
/// ```
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

    /// The script as a call.
    pub(crate) fn into_call<T>(self, po: PostingEnd) -> Call<T> {
        let Script {
            source,
            parameters,
            values,
            mut error,
        } = self;
        if parameters.len() > u8::MAX as usize {
            let text = format!("{} parameters bound, at most 255 can be", parameters.len());
            error.get_or_insert(Error::new(Kind::Misuse, text));
        }
        let (bytes, handles) = Packed::array(values).into_parts();
        Call::posting(Post {
            po,
            text: PostText::Free {
                source,
                parameters,
                again: false,
            },
            arguments: Packing::from_slice(&bytes),
            handles,
            error,
        })
    }
}

/// A script on its way to a peer: bind what it needs, then await it.
#[must_use = "a script does nothing until it is awaited or sent"]
pub struct ScriptCall<T> {
    po: PostingEnd,
    script: Script,
    within: Option<Duration>,
    answer: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for ScriptCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScriptCall").field(&self.script).finish()
    }
}

impl<T> ScriptCall<T> {
    pub(crate) fn new(po: PostingEnd, source: Cow<'static, str>) -> Self {
        Self {
            po,
            script: Script::new(source),
            within: None,
            answer: PhantomData,
        }
    }

    /// Binds a value to a name of the script. Values travel beside the text, never in it.
    pub fn bind<V: Serialize + 'static>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: V,
    ) -> Self {
        self.script = self.script.bind(name, value);
        self
    }

    /// Gives the script this long, from when it is sent.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Sends the script now; its answer comes when what this returns is awaited.
    pub fn send(self) -> Call<T> {
        self.call().send()
    }

    /// The script as a call.
    pub fn call(self) -> Call<T> {
        let call = self.script.into_call(self.po);
        match self.within {
            Some(time) => call.within(time),
            None => call,
        }
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for ScriptCall<T> {
    type Output = Result<T, Error>;
    type IntoFuture = Call<T>;

    fn into_future(self) -> Call<T> {
        self.call()
    }
}

impl PostingEnd {
    /// A script for the peer, which answers a `T`.
    pub fn script<T>(&self, source: impl Into<Cow<'static, str>>) -> ScriptCall<T> {
        ScriptCall::new(self.clone(), source.into())
    }

    /// Runs a script at the peer.
    pub fn run<T>(&self, script: Script) -> Call<T> {
        script.into_call(self.clone())
    }
}
