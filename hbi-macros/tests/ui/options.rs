//! What `#[hbi(...)]` and `#[hbi::service(...)]` cannot say.

#[hbi::service(flat, name = "rooms", colour = "red")]
pub trait Rooms {
    #[hbi(notfy, unsent)]
    async fn typo(&self);
    #[hbi(rename = 7)]
    async fn number(&self);
    #[hbi(rename = "see you")]
    async fn bye(&self);
    #[hbi(rename = "bye_now")]
    async fn renamed(&self);
    async fn bye_now(&self);
    #[hbi]
    async fn nothing(&self);
    #[hbi(notify, converse)]
    async fn both(&self, co: hbi::HoCo) -> hbi::Result<()>;
    #[hbi(converse)]
    async fn alone(&self) -> hbi::Result<()>;
    #[hbi(converse)]
    fn at_once(&self, co: hbi::HoCo) -> hbi::Result<()>;
    #[hbi(no_cancel, parallel)]
    fn quick(&self) -> u64;
}

fn main() {}
