//! Keeps one copy of values that many nodes share.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// A pool. Two values from it are equal if their pointers are.
#[derive(Debug)]
pub(crate) struct Interner<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// At this size, unused values are dropped.
    sweep_at: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: 0,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The known equal value, or this one.
    pub(crate) fn intern(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(&value) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = 64 + 2 * self.known.len();
        }
        self.known.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_kept_once_and_what_nobody_uses_goes() {
        let mut pool: Interner<str> = Interner::default();
        let first = pool.intern("a".into());
        assert!(Arc::ptr_eq(&first, &pool.intern("a".into())));
        for unused in 0..1000 {
            pool.intern(unused.to_string().into());
        }
        assert!(pool.known.len() < 200, "{}", pool.known.len());
        assert!(Arc::ptr_eq(&first, &pool.intern("a".into())));
    }
}
