//! The works: what is measured, written once for all peers.

mod bench;
mod load;

use std::{fmt, str::FromStr, time::Duration};

pub(crate) use bench::{Bench, Sample, repeat};
pub(crate) use load::{Load, Meter, Tally};

/// How long a method computes, where it does.
pub(crate) const COMPUTING: Duration = Duration::from_millis(1);

/// One work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// One call at a time.
    Seq,
    /// So many calls in flight.
    Pipe(usize),
    /// 4 KiB there and back, 64 in flight.
    Echo,
    /// 1 GiB from server to client.
    BulkDown,
    /// 1 GiB from client to server.
    BulkUp,
    /// A small call at a time beside 1 GiB from server to client, on the same connection.
    Hol,
    /// So many calls of which each needs the result of the one before, far away.
    Chain(u32),
    /// An event pushed to so many consumers.
    Push(usize),
    /// A raw peer-script of so many calls, 64 in flight.
    Script(u32),
    /// A raw peer-script that makes so many calls in a loop, 64 in flight.
    Loop(u32),
    /// So many calls in flight that compute, in place, and a small call at a time beside them.
    InPlace(usize),
    /// The same, with methods marked `parallel`.
    Parallel(usize),
    /// So many connections that do nothing.
    Idle(usize),
    /// At least 64 calls in flight, as many on each of so many connections.
    Connections(usize),
    /// 64 calls in flight, of as many different methods as are exposed.
    Methods(usize),
    /// 64 calls in flight, of as many different interned scripts.
    Interned(usize),
}

type Numbered = (&'static str, fn(usize) -> Work, usize);

/// The works that take a number, by the part of their name before it, and the largest that makes sense.
const NUMBERED: [Numbered; 11] = [
    ("pipe", Work::Pipe, 100_000),
    // compositions nest up to 512 deep
    ("chain", |n| Work::Chain(n as u32), 500),
    // there are some 28,000 ports to connect from
    ("push", Work::Push, 20_000),
    // a text has up to 16 KiB
    ("script", |n| Work::Script(n as u32), 500),
    // of 64 in flight some shall end in a short time
    ("loop", |n| Work::Loop(n as u32), 1000),
    // the small call waits for all of them
    ("inplace", Work::InPlace, 100),
    ("parallel", Work::Parallel, 100),
    ("idle", Work::Idle, 20_000),
    ("connections", Work::Connections, 20_000),
    ("methods", Work::Methods, 100_000),
    ("interned", Work::Interned, 100_000),
];

impl Work {
    /// The works of `scale` alone, by the part of their name before the number, and what they are.
    pub(crate) const SCALED: [(&str, &str); 3] = [
        (
            "connections",
            "at least 64 calls in flight, as many on each of N connections",
        ),
        (
            "methods",
            "64 calls in flight, of N exposed methods in turn",
        ),
        (
            "interned",
            "64 calls in flight, of N interned scripts in turn",
        ),
    ];

    /// What `all` measures.
    pub(crate) const ALL: [Work; 16] = [
        Work::Seq,
        Work::Pipe(1),
        Work::Pipe(64),
        Work::Pipe(1024),
        Work::Echo,
        Work::BulkDown,
        Work::BulkUp,
        Work::Hol,
        Work::Chain(8),
        Work::Push(1000),
        Work::Script(1),
        Work::Script(3),
        Work::Loop(3),
        Work::InPlace(2),
        Work::Parallel(2),
        Work::Idle(2000),
    ];

    /// What `scale` measures, each kind in ascending order.
    pub(crate) fn scale() -> Vec<Work> {
        let tens = |up_to: u32| (0..=up_to).map(|power| 10_usize.pow(power));
        let mut works: Vec<Work> = tens(5).map(Work::Pipe).collect();
        works.extend(tens(4).map(Work::Connections));
        // there a call becomes dearer between 1,000 and 10,000
        let finer = |up_to: u32| {
            let mut numbers: Vec<usize> = tens(up_to).collect();
            numbers.insert(4, 3000);
            numbers
        };
        works.extend(finer(4).into_iter().map(Work::Methods));
        works.extend(finer(5).into_iter().map(Work::Interned));
        works
    }

    pub(crate) fn about(self) -> String {
        match self {
            Work::Seq => "one call at a time".into(),
            Work::Pipe(n) => format!("{n} call(s) in flight on one connection"),
            Work::Echo => "4 KiB there and back, 64 in flight".into(),
            Work::BulkDown => "1 GiB from server to client".into(),
            Work::BulkUp => "1 GiB from client to server".into(),
            Work::Hol => {
                "one small call at a time beside 1 GiB from server to client, same connection"
                    .into()
            }
            Work::Chain(n) => format!("{n} dependent calls over a round trip of 20 ms"),
            Work::Push(n) => format!("an event pushed to {n} consumers, each on its connection"),
            Work::Script(n) => format!("a raw peer-script of {n} call(s), 64 in flight"),
            Work::Loop(n) => {
                format!("a raw peer-script that makes {n} call(s) in a loop, 64 in flight")
            }
            Work::InPlace(n) => {
                format!(
                    "{n} call(s) in flight that compute for 1 ms, and a small call beside them, whose \
                     p50 it is; with two cores the server has both"
                )
            }
            Work::Parallel(n) => {
                format!("the same with {n} call(s) of a method marked `parallel`")
            }
            Work::Idle(n) => format!("memory of {n} idle connections, each after one call"),
            Work::Connections(n) => {
                format!("at least 64 calls in flight, as many on each of {n} connection(s)")
            }
            Work::Methods(n) => format!("64 calls in flight, of {n} exposed methods in turn"),
            Work::Interned(n) => format!("64 calls in flight, of {n} interned scripts in turn"),
        }
    }

    /// The metric that the spread, the ratio and the charts are of.
    pub(crate) fn metric(self) -> &'static str {
        self.metrics()[0]
    }

    /// The metrics that tables of medians are of.
    pub(crate) fn metrics(self) -> &'static [&'static str] {
        match self {
            Work::Seq => &["p50"],
            Work::Hol => &["p99"],
            Work::Chain(_) => &["time"],
            Work::Idle(_) => &["server memory"],
            // how long the small call waits is what they differ in
            Work::InPlace(_) | Work::Parallel(_) => &["rate", "p50"],
            _ => &["rate"],
        }
    }

    /// How many connections it has open.
    pub(crate) fn connections(self) -> usize {
        match self {
            Work::Push(n) | Work::Idle(n) => n + 1,
            Work::Connections(n) => n,
            _ => 1,
        }
    }

    /// Whether its methods compute, where it is about how many cores they run on.
    pub(crate) fn computes(self) -> bool {
        matches!(self, Work::InPlace(_) | Work::Parallel(_))
    }

    /// How many threads the server has on a machine of so many cores: one, but where several are what
    /// it is about. Then what computes has as many as it can use, and the connection one more.
    pub(crate) fn server_threads(self, cores: usize) -> usize {
        match self {
            Work::InPlace(n) | Work::Parallel(n) => n.min(cores) + 1,
            _ => 1,
        }
    }

    /// The names of the works that take a number, each with its largest.
    pub(crate) fn largest() -> String {
        NUMBERED
            .map(|(_, make, most)| make(most).to_string())
            .join(", ")
    }

    /// The number in its name, and the kind of work it belongs to.
    pub(crate) fn number(self) -> Option<(&'static str, usize)> {
        let name = self.to_string();
        let (_, number) = name.rsplit_once('_')?;
        let number = number.parse().ok()?;
        let (kind, ..) = NUMBERED.iter().find(|(_, make, _)| make(number) == self)?;
        Some((kind, number))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Seq => f.write_str("seq"),
            Work::Pipe(n) => write!(f, "pipe_{n}"),
            Work::Echo => f.write_str("echo_4k"),
            Work::BulkDown => f.write_str("bulk_down"),
            Work::BulkUp => f.write_str("bulk_up"),
            Work::Hol => f.write_str("hol"),
            Work::Chain(n) => write!(f, "chain_{n}"),
            Work::Push(n) => write!(f, "push_{n}"),
            Work::Script(n) => write!(f, "script_{n}"),
            Work::Loop(n) => write!(f, "loop_{n}"),
            Work::InPlace(n) => write!(f, "inplace_{n}"),
            Work::Parallel(n) => write!(f, "parallel_{n}"),
            Work::Idle(n) => write!(f, "idle_{n}"),
            Work::Connections(n) => write!(f, "connections_{n}"),
            Work::Methods(n) => write!(f, "methods_{n}"),
            Work::Interned(n) => write!(f, "interned_{n}"),
        }
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(work) = Work::ALL.into_iter().find(|work| work.to_string() == name) {
            return Ok(work);
        }
        let numbered = name.rsplit_once('_').and_then(|(kind, number)| {
            let numbered = NUMBERED.iter().find(|(known, ..)| *known == kind)?;
            Some((numbered, number))
        });
        let Some(((kind, make, most), number)) = numbered else {
            let known = Work::ALL.map(|work| work.to_string()).join(", ");
            let kinds = NUMBERED.map(|(kind, ..)| format!("{kind}_N")).join(", ");
            return Err(format!(
                "the works are {known}; with another number {kinds}"
            ));
        };
        match number.parse() {
            Ok(number) if (1..=*most).contains(&number) => Ok(make(number)),
            _ => Err(format!(
                "the number of {kind}_N is {number} here, and may be 1 to {most}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bounded_where_names_are_read() {
        for (kind, make, most) in NUMBERED {
            let largest = make(most);
            assert_eq!(largest.to_string().parse(), Ok(largest));
            assert_eq!(largest.number(), Some((kind, most)));
            for number in [0, most + 1] {
                let error = format!("{kind}_{number}").parse::<Work>().unwrap_err();
                assert!(error.contains(&number.to_string()) && error.contains(&most.to_string()));
            }
        }
        for work in Work::ALL.into_iter().chain(Work::scale()) {
            assert_eq!(work.to_string().parse(), Ok(work));
        }
        assert!("parallel_".parse::<Work>().is_err() && "nothing_1".parse::<Work>().is_err());
    }

    #[test]
    fn only_what_computes_has_threads_and_no_more_than_cores_and_one() {
        assert_eq!(Work::Pipe(64).server_threads(2), 1);
        assert_eq!(Work::Parallel(1).server_threads(2), 2);
        assert_eq!(Work::InPlace(100).server_threads(2), 3);
    }
}
