//! Names that scripts cannot say.

#[hbi::service]
pub trait Match {
    async fn new(&self);
    async fn spawn(&self);
    async fn r#match(&self);
    async fn größe(&self) -> u64;
    async fn _0(&self);
    #[hbi(rename = "yield")]
    async fn give(&self);
    #[hbi(rename = "print_all")]
    async fn print(&self);
}

#[hbi::service]
pub trait Maker {
    #[hbi(rename = "make")]
    async fn new(&self);
}

#[hbi::service(name = "this")]
pub trait Other {}

#[hbi::service(name = "my-rooms")]
pub trait Rooms {}

fn main() {}
