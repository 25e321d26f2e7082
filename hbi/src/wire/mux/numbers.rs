//! Numbers of conversations: an index, how often it was used before, which tells one use of it from all
//! others, and whose number it is. Frames carry no more of the uses than tells one from those next to it.

use super::{MAX_CONVERSATIONS, Violation};

const INDEX: u32 = MAX_CONVERSATIONS - 1;
const GENERATION_SHIFT: u32 = 23;
const THEIRS: u32 = 1 << 31;
const USES_SHIFT: u32 = 32;

/// The number of a conversation on one connection, which no other has: whoever keeps it when the
/// conversation is over finds none by it.
///
/// Lower half: what stands of it in frames. Upper half: how often its index was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoId(u64);

/// What stands of a number in frames.
///
/// Lowest 23 bits: index. Next 8: generation, the lowest of how often the index was used before. Highest
/// bit: set when the peer opened it; on the wire, when the receiver of the frame opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireId(u32);

impl CoId {
    #[inline]
    fn new(wire: WireId, uses: u32) -> Self {
        Self(u64::from(wire.0) | u64::from(uses) << USES_SHIFT)
    }

    /// What stands of it in frames.
    #[inline]
    pub fn wire(self) -> WireId {
        WireId(self.0 as u32)
    }

    /// The number as it stands in a frame that this side sends.
    #[inline]
    pub(super) fn to_wire(self) -> u32 {
        self.wire().0
    }

    /// Whether the peer opened it.
    #[inline]
    pub fn is_hosted(self) -> bool {
        self.wire().is_hosted()
    }

    #[inline]
    fn index(self) -> usize {
        self.wire().index()
    }

    #[inline]
    fn uses(self) -> u32 {
        (self.0 >> USES_SHIFT) as u32
    }

    /// The number as plain bits.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The number of [`Self::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl WireId {
    #[inline]
    fn ours(index: usize, uses: u32) -> Self {
        Self(index as u32 | u32::from(uses as u8) << GENERATION_SHIFT)
    }

    /// What stands in a frame that this side sends.
    #[inline]
    pub(super) fn sent(number: u32) -> Self {
        Self(number)
    }

    /// What stands in a frame that arrived.
    #[inline]
    pub(super) fn arrived(number: u32) -> Self {
        Self(number ^ THEIRS)
    }

    #[inline]
    pub(super) fn is_hosted(self) -> bool {
        self.0 & THEIRS != 0
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        (self.0 & INDEX) as usize
    }

    #[inline]
    fn generation(self) -> u8 {
        (self.0 >> GENERATION_SHIFT) as u8
    }
}

/// The conversations of one side, by index.
#[derive(Debug)]
pub(super) struct Numbers<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    live: usize,
}

#[derive(Debug)]
struct Entry<T> {
    /// How often it was used before its last use.
    uses: u32,
    open: bool,
    /// While it is not open, as it is by default.
    value: T,
}

impl<T: Default> Entry<T> {
    /// One that was never open.
    fn new() -> Self {
        Self {
            // none before the first, which counts on from here
            uses: u32::MAX,
            open: false,
            value: T::default(),
        }
    }
}

impl<T: Default> Numbers<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            live: 0,
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: CoId) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.index())?;
        (entry.open && entry.uses == id.uses()).then_some(&mut entry.value)
    }

    /// The one that is open of which this stands in a frame.
    #[inline]
    pub(super) fn find(&mut self, wire: WireId) -> Option<(CoId, &mut T)> {
        let entry = self.entries.get_mut(wire.index())?;
        let is_it = entry.open && entry.uses as u8 == wire.generation();
        is_it.then_some((CoId::new(wire, entry.uses), &mut entry.value))
    }

    /// Takes a free number; `begin` makes of the default value what it is to be.
    #[inline(always)]
    pub(super) fn insert(&mut self, begin: impl FnOnce(&mut T)) -> CoId {
        self.live += 1;
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => self.more(),
        };
        let entry = &mut self.entries[index];
        entry.uses = entry.uses.wrapping_add(1);
        entry.open = true;
        begin(&mut entry.value);
        CoId::new(WireId::ours(index, entry.uses), entry.uses)
    }

    /// An index that was never used.
    #[cold]
    fn more(&mut self) -> usize {
        self.entries.push(Entry::new());
        self.entries.len() - 1
    }

    /// Opens the number that the peer chose; `begin` makes of the default value what it is to be.
    #[inline]
    pub(super) fn open(
        &mut self,
        wire: WireId,
        limit: u32,
        begin: impl FnOnce(&mut T),
    ) -> Result<CoId, Violation> {
        let index = wire.index();
        if index >= self.entries.len() {
            self.next(index, limit)?;
        }
        let entry = &mut self.entries[index];
        let uses = entry.uses.wrapping_add(1);
        if entry.open || uses as u8 != wire.generation() {
            return Err(out_of_turn(index));
        }
        entry.uses = uses;
        entry.open = true;
        self.live += 1;
        begin(&mut entry.value);
        Ok(CoId::new(wire, uses))
    }

    /// Makes room for an index that was never used, if it is the next and below the limit.
    #[cold]
    fn next(&mut self, index: usize, limit: u32) -> Result<(), Violation> {
        if index >= limit as usize {
            return Err(Violation::new(format!(
                "conversation {index} opened where at most {limit} may be open at once"
            )));
        }
        // so this grows by what was really open
        let next = self.entries.len();
        if index > next {
            return Err(Violation::new(format!(
                "conversation {index} opened where {next} is the next new one"
            )));
        }
        if index == 0 {
            // most connections make one call at a time
            self.entries.reserve_exact(1);
        }
        self.entries.push(Entry::new());
        Ok(())
    }

    /// The number of which this stands in a frame, if it was ever open: frames that come late for it are
    /// dropped, others are a violation.
    #[inline]
    pub(super) fn known(&self, wire: WireId) -> Option<CoId> {
        let uses = self.entries.get(wire.index())?.uses;
        // half of the generations count as past, the other half as not yet used
        let age = (uses as u8).wrapping_sub(wire.generation());
        (age < 128).then(|| CoId::new(wire, uses.wrapping_sub(age.into())))
    }

    /// Frees the number of one that is open; `end` makes of its value the default one.
    #[inline]
    pub(super) fn free(&mut self, id: CoId, end: impl FnOnce(&mut T)) {
        let entry = &mut self.entries[id.index()];
        entry.open = false;
        end(&mut entry.value);
        self.live -= 1;
        if !id.is_hosted() {
            self.free.push(id.index() as u32);
        }
    }

    pub(super) fn remove(&mut self, id: CoId) -> Option<T> {
        let entry = self.entries.get_mut(id.index())?;
        if !entry.open || entry.uses != id.uses() {
            return None;
        }
        entry.open = false;
        let value = std::mem::take(&mut entry.value);
        self.live -= 1;
        if !id.is_hosted() {
            self.free.push(id.index() as u32);
        }
        Some(value)
    }

    /// Empties the table; returns what was open.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.live = 0;
        self.free.clear();
        std::mem::take(&mut self.entries)
            .into_iter()
            .filter_map(|entry| entry.open.then_some(entry.value))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let open = self.entries.iter().filter(|entry| entry.open);
        open.map(|entry| &entry.value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let open = self.entries.iter_mut().filter(|entry| entry.open);
        open.map(|entry| &mut entry.value)
    }
}

#[cold]
fn out_of_turn(index: usize) -> Violation {
    Violation::new(format!(
        "conversation {index} opened again before its end, or out of turn"
    ))
}
