//! Free scripts with bound parameters.

use std::{borrow::Cow, fmt, future::IntoFuture, marker::PhantomData, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Arguments, Call, OfConnection,
    post::{Post, PostText, Unsent},
};
use crate::{Error, PostingEnd, Script};

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

    /// Gives the script this long, from when it is awaited or sent.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Sends the script now; its answer comes when what this returns is awaited.
    pub fn send(self) -> Call<T, Error, OfConnection> {
        self.call().send()
    }

    /// The script as a call.
    pub fn call(self) -> Call<T, Error, OfConnection> {
        let call = into_call(self.script, self.po);
        match self.within {
            Some(time) => call.within(time),
            None => call,
        }
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for ScriptCall<T> {
    type Output = Result<T, Error>;
    type IntoFuture = Call<T, Error, OfConnection>;

    fn into_future(self) -> Call<T, Error, OfConnection> {
        self.call()
    }
}

impl PostingEnd {
    /// A script for the peer, which answers a `T`.
    pub fn script<T>(&self, source: impl Into<Cow<'static, str>>) -> ScriptCall<T> {
        ScriptCall::new(self.clone(), source.into())
    }

    /// Runs a script at the peer.
    pub fn run<T>(&self, script: Script) -> Call<T, Error, OfConnection> {
        into_call(script, self.clone())
    }
}

/// A script as a call.
fn into_call<T>(script: Script, po: PostingEnd) -> Call<T, Error, OfConnection> {
    let (source, parameters, values, error) = script.into_parts();
    let mut arguments = Arguments::whole(values);
    if let Some(error) = error {
        arguments.fail(error);
    }
    let text = PostText::free(source, parameters);
    Call::posting(po, Unsent::new(Post::new(text, arguments)))
}
