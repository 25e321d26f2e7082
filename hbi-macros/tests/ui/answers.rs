//! What an answer cannot be.

#[hbi::service]
pub trait Files {
    async fn text(&self) -> &str;
    async fn nested(&self) -> Option<&[u8]>;
    async fn lines(&self) -> impl Iterator<Item = String>;
    fn later(&self, n: u64) -> impl Future<Output = Vec<u8>> + Send;
    async fn itself(&self) -> Self;
    #[hbi(notify)]
    async fn notified(&self) -> u64;
    #[hbi(converse)]
    async fn conversed(&self, co: hbi::HoCo) -> hbi::Result<u64>;
    #[hbi(converse)]
    async fn conversed_for_nothing(&self, co: hbi::HoCo);
    async fn good(&self) -> &'static str;
}

fn main() {}
