//! Advisory locks on ranges of a file.
//!
//! Locks of one client never stand in each other's way: a client is a kernel, which arbitrates
//! between its own processes before it asks here. It may also ask for an unlock in the name of
//! another process than the one that locked (an open file passed on by fork), and would then wait
//! for itself for ever.

/// What a lock does (`P9_LOCK_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Shared.
    Read = 0,
    /// Exclusive.
    Write = 1,
    /// None: what was locked in the range is released.
    Unlock = 2,
}

impl LockKind {
    /// From its number on the wire.
    pub fn from_wire(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            2 => Some(Self::Unlock),
            _ => None,
        }
    }
}

/// A locked range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What it does.
    pub kind: LockKind,
    /// The first byte.
    pub start: u64,
    /// Bytes; 0 is to the end of the file, wherever that will be.
    pub length: u64,
    /// The process that holds it, as its client counts.
    pub proc_id: u32,
    /// The client that holds it.
    pub client_id: Box<[u8]>,
}

impl Lock {
    /// The first byte behind the range.
    fn end(&self) -> u64 {
        if self.length == 0 { u64::MAX } else { self.start.saturating_add(self.length) }
    }

    fn with_range(&self, start: u64, end: u64) -> Self {
        let length = if end == u64::MAX { 0 } else { end - start };
        Self { start, length, ..self.clone() }
    }

    fn same_owner(&self, other: &Self) -> bool {
        self.proc_id == other.proc_id && self.client_id == other.client_id
    }

    /// Whether the other lock has to wait for this one.
    fn blocks(&self, other: &Self) -> bool {
        self.client_id != other.client_id
            && (self.kind == LockKind::Write || other.kind == LockKind::Write)
            && self.start < other.end()
            && other.start < self.end()
    }
}

/// The lock that the wanted one would have to wait for.
pub fn conflict<'a>(locks: &'a [Lock], wanted: &Lock) -> Option<&'a Lock> {
    if wanted.kind == LockKind::Unlock {
        return None;
    }
    locks.iter().find(|held| held.blocks(wanted))
}

/// Sets or releases a range for its owner, as fcntl does: what the owner held there is replaced.
pub fn apply(locks: &mut Vec<Lock>, wanted: Lock) {
    let (mut start, mut end) = (wanted.start, wanted.end());
    let mut kept = Vec::with_capacity(locks.len() + 2);
    for held in locks.drain(..) {
        let apart = held.end() < start || held.start > end;
        if apart || !held.same_owner(&wanted) {
            kept.push(held);
        } else if held.kind == wanted.kind {
            start = start.min(held.start);
            end = end.max(held.end());
        } else {
            if held.start < wanted.start {
                kept.push(held.with_range(held.start, wanted.start));
            }
            if held.end() > wanted.end() {
                kept.push(held.with_range(wanted.end(), held.end()));
            }
        }
    }
    if wanted.kind != LockKind::Unlock {
        kept.push(wanted.with_range(start, end));
    }
    *locks = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(kind: LockKind, start: u64, length: u64, proc_id: u32, client: &str) -> Lock {
        Lock { kind, start, length, proc_id, client_id: client.as_bytes().into() }
    }

    #[test]
    fn unlocking_the_middle_splits() {
        let mut locks = Vec::new();
        apply(&mut locks, lock(LockKind::Write, 0, 0, 1, "a"));
        apply(&mut locks, lock(LockKind::Unlock, 10, 10, 1, "a"));
        assert_eq!(locks, [lock(LockKind::Write, 0, 10, 1, "a"), lock(LockKind::Write, 20, 0, 1, "a")]);
        apply(&mut locks, lock(LockKind::Write, 10, 10, 1, "a"));
        assert_eq!(locks, [lock(LockKind::Write, 0, 0, 1, "a")]);
        apply(&mut locks, lock(LockKind::Unlock, 0, 0, 1, "a"));
        assert!(locks.is_empty());
    }

    #[test]
    fn clients_wait_for_each_other_and_not_for_themselves() {
        let held = [lock(LockKind::Write, 5, 5, 1, "a")];
        assert!(conflict(&held, &lock(LockKind::Read, 0, 6, 2, "b")).is_some());
        assert!(conflict(&held, &lock(LockKind::Read, 0, 5, 2, "b")).is_none());
        assert!(conflict(&held, &lock(LockKind::Read, 10, 0, 2, "b")).is_none());
        assert!(conflict(&held, &lock(LockKind::Write, 0, 0, 2, "a")).is_none());
        assert!(conflict(&held, &lock(LockKind::Unlock, 0, 0, 2, "b")).is_none());
        let shared = [lock(LockKind::Read, 0, 0, 1, "a")];
        assert!(conflict(&shared, &lock(LockKind::Read, 0, 0, 2, "b")).is_none());
    }
}
