//! Those who wait to open a conversation.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::{Context, Waker},
    time::Instant,
};

/// A line of tasks that wait for room. When there is some the first is asked. It may not come for it,
/// which nobody tells, so the next is asked as long as the room is there.
#[derive(Debug, Default)]
pub struct Line {
    /// Who waits in which place, and until when; places are given in the order of coming.
    waiting: BTreeMap<u64, (Waker, Option<Instant>)>,
    /// When who waits gives up, and in which place.
    deadlines: BTreeSet<(Instant, u64)>,
    /// The place that was given last.
    last: u64,
    /// How many may still be asked for the room there was last: those who were there then.
    asking: usize,
}

impl Line {
    /// Waits in its place, or joins the end, without one or after it was asked; returns the place.
    pub fn wait(&mut self, place: Option<u64>, deadline: Option<Instant>, cx: &Context<'_>) -> u64 {
        if let Some(place) = place
            && let Some((waker, _)) = self.waiting.get_mut(&place)
        {
            waker.clone_from(cx.waker());
            return place;
        }
        self.last += 1;
        self.waiting
            .insert(self.last, (cx.waker().clone(), deadline));
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, self.last)));
        self.last
    }

    /// Gives a place up; what is returned is not needed any more.
    pub fn leave(&mut self, place: u64) -> Option<Waker> {
        let (waker, deadline) = self.waiting.remove(&place)?;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, place));
        }
        Some(waker)
    }

    /// The next deadline of one who waits.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Wakes those whose deadlines have passed, who are not in the line any more.
    pub fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        while let Some(&(deadline, place)) = self.deadlines.first()
            && deadline <= now
        {
            wakers.extend(self.leave(place));
        }
    }

    fn next(&mut self) -> Option<Waker> {
        let (&place, _) = self.waiting.first_key_value()?;
        self.leave(place)
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// There is room for one more.
    #[inline]
    pub fn ask(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(waker) = self.next() {
            wakers.push(waker);
            self.asking = self.waiting.len();
        }
    }

    /// Whether there are more to be asked, once those who were have had their turn.
    pub fn is_asking(&self) -> bool {
        self.asking > 0
    }

    /// Asks the next, if nobody has taken the room.
    pub fn ask_on(&mut self, room: bool, wakers: &mut Vec<Waker>) {
        let next = if room { self.next() } else { None };
        match next {
            Some(waker) => {
                wakers.push(waker);
                self.asking -= 1;
            }
            None => self.asking = 0,
        }
    }

    /// Asks all.
    pub fn ask_all(&mut self, wakers: &mut Vec<Waker>) {
        let waiting = std::mem::take(&mut self.waiting).into_values();
        wakers.extend(waiting.map(|(waker, _)| waker));
        self.deadlines.clear();
        self.asking = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
        time::Duration,
    };

    use super::*;

    #[derive(Default)]
    struct Asked(AtomicUsize);

    impl Wake for Asked {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tasks<const N: usize>() -> [(Arc<Asked>, Waker); N] {
        std::array::from_fn(|_| {
            let asked = Arc::new(Asked::default());
            let waker = Waker::from(Arc::clone(&asked));
            (asked, waker)
        })
    }

    fn asked(line: &mut Line, ask: impl FnOnce(&mut Line, &mut Vec<Waker>)) {
        let mut wakers = Vec::new();
        ask(line, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    #[test]
    fn they_are_asked_in_the_order_they_came_as_long_as_there_is_room() {
        let tasks = tasks::<4>();
        let counts = || {
            tasks
                .each_ref()
                .map(|(asked, _)| asked.0.load(Ordering::Relaxed))
        };
        let mut line = Line::default();
        let mut places = [0; 4];
        for (place, (_, waker)) in places.iter_mut().zip(&tasks) {
            *place = line.wait(None, None, &Context::from_waker(waker));
        }
        // who asks again stays where it is
        let again = line.wait(Some(places[0]), None, &Context::from_waker(&tasks[0].1));
        assert_eq!(again, places[0]);
        asked(&mut line, Line::ask);
        assert_eq!(counts(), [1, 0, 0, 0]);
        // it found too little and waits again, behind the others
        let behind = line.wait(Some(places[0]), None, &Context::from_waker(&tasks[0].1));
        assert!(behind > places[3]);
        asked(&mut line, |line, wakers| line.ask_on(true, wakers));
        assert_eq!(counts(), [1, 1, 0, 0]);
        // somebody took the room: nobody is asked until there is some again
        asked(&mut line, |line, wakers| line.ask_on(false, wakers));
        assert!(!line.is_asking());
        asked(&mut line, Line::ask_all);
        assert_eq!(counts(), [2, 1, 1, 1]);
        assert!(line.is_empty());
    }

    #[test]
    fn who_leaves_is_not_asked_and_leaves_nothing_behind() {
        let [(first, one), (second, two)] = tasks();
        let mut line = Line::default();
        let place = line.wait(None, None, &Context::from_waker(&one));
        line.wait(None, None, &Context::from_waker(&two));
        drop(one);
        drop(line.leave(place));
        assert_eq!(Arc::strong_count(&first), 1);
        asked(&mut line, Line::ask);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
        assert!(line.leave(place).is_none() && line.is_empty());
    }

    #[test]
    fn who_has_waited_long_enough_is_told_and_nobody_else() {
        let tasks = tasks::<4>();
        let counts = || {
            tasks
                .each_ref()
                .map(|(asked, _)| asked.0.load(Ordering::Relaxed))
        };
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut line = Line::default();
        let deadlines = [Some(at(3)), None, Some(at(2)), Some(at(1))];
        let mut places = [0; 4];
        for ((place, (_, waker)), deadline) in places.iter_mut().zip(&tasks).zip(deadlines) {
            *place = line.wait(None, deadline, &Context::from_waker(waker));
        }
        assert_eq!(line.deadline(), Some(at(1)));
        drop(line.leave(places[3]));
        assert_eq!(line.deadline(), Some(at(2)));
        asked(&mut line, |line, wakers| line.expire(at(2), wakers));
        assert_eq!(counts(), [0, 0, 1, 0]);
        assert_eq!(line.deadline(), Some(at(3)));
        asked(&mut line, Line::ask);
        assert_eq!((counts(), line.deadline()), ([1, 0, 1, 0], None));
        asked(&mut line, |line, wakers| line.expire(at(9), wakers));
        assert_eq!(counts(), [1, 0, 1, 0]);
    }
}
