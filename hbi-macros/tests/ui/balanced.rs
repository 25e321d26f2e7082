//! What belongs to one connection, and so is no call for a stub over several.

use hbi::{Data, HoCo, Items, PostingEnd, Reactor, peer::balance::Balanced};

#[hbi::service]
pub trait Room {
    async fn say(&self, line: String);
}

#[hbi::service]
pub trait Calc {
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn sum(&self, items: Items<i64>) -> i64;
    async fn watch(&self, room: String) -> Items<String>;
    async fn download(&self, name: String) -> hbi::Result<(u64, Data)>;
    async fn open(&self, room: String) -> Reactor<RoomStub>;
    async fn join(&self, rooms: Vec<Reactor<RoomStub>>) -> i64;
    #[hbi(notify)]
    async fn log(&self, line: String);
    #[hbi(converse)]
    async fn talk(&self, co: HoCo) -> hbi::Result<()>;
}

async fn all(calc: Balanced<CalcStub>, po: PostingEnd) {
    let _ = calc.call(|calc| calc.add(calc.add(1, 2), 3)).await;
    let _ = calc.call(|calc| calc.sum(Items::iter([1]))).await;
    let _ = calc.call(|calc| calc.watch("tea")).await;
    let _ = calc.call(|calc| calc.download("file")).await;
    let _ = calc.call(|calc| calc.open("tea")).await;
    let _ = calc.call(|calc| calc.join(Vec::new())).await;
    let _ = calc.call(|calc| calc.log("line")).await;
    let _ = calc.call(|calc| calc.talk()).await;
    let _ = calc.call(|_| po.script::<i64>("env.n").call()).await;
}

fn main() {}
