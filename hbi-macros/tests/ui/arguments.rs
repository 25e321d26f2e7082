//! What an argument cannot be.

use hbi::{Caller, HoCo};

#[hbi::service]
pub trait Files {
    async fn text(&self, text: &str);
    async fn slice(&self, bytes: &[u8]);
    async fn lent(&self, count: &mut u64);
    async fn path(&self, path: &std::path::Path);
    async fn nested(&self, words: Vec<(u8, &str)>);
    async fn some(&self, items: impl Iterator<Item = u8>);
    async fn pattern(&self, (a, b): (i64, i64));
    async fn unnamed(&self, _: i64);
    async fn marked(&self, #[allow(unused)] a: i64);
    async fn itself(&self, other: Self);
    async fn caller_last(&self, a: i64, cx: &Caller);
    async fn caller_owned(&self, cx: Caller);
    #[hbi(converse)]
    async fn conversation_last(&self, a: i64, co: HoCo) -> hbi::Result<()>;
    #[hbi(converse)]
    async fn conversation_lent(&self, co: &mut HoCo) -> hbi::Result<()>;
    #[hbi(converse)]
    async fn two_conversations(&self, co: HoCo, other: HoCo) -> hbi::Result<()>;
    async fn unmarked(&self, co: HoCo) -> hbi::Result<()>;
    async fn good(&self, text: std::borrow::Cow<'static, str>);
}

fn main() {}
