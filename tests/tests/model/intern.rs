//! Parts of states, each kept once: a state is a handful of small numbers then, and what one part
//! leads to is computed once, however many states have it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;

/// A part that is known by its number: equal parts have the same one.
pub(crate) struct Interned<T> {
    id: u32,
    value: Arc<T>,
}

impl<T> Interned<T> {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl<T: fmt::Debug> Interned<T> {
    /// Whether it holds the uid of an object. The product's memory is searched as
    /// text.
    pub(crate) fn names(&self, uid: &str) -> bool {
        format!("{:?}", self.value).contains(&format!("{uid:?}"))
    }
}

impl<T> Clone for Interned<T> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            value: Arc::clone(&self.value),
        }
    }
}

impl<T> PartialEq for Interned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<T> Eq for Interned<T> {}

impl<T> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl<T> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Interned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// All parts of one kind.
pub(crate) struct Pool<T>(Mutex<AHashMap<Arc<T>, u32>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Eq + Hash> Pool<T> {
    pub(crate) fn put(&self, value: T) -> Interned<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, id)) = known.get_key_value(&value) {
            return Interned {
                id: *id,
                value: Arc::clone(value),
            };
        }
        let (value, id) = (Arc::new(value), known.len().try_into().unwrap_or(u32::MAX));
        known.insert(Arc::clone(&value), id);
        Interned { id, value }
    }
}

/// What parts were found to lead to.
pub(crate) struct Memo<K, V>(Mutex<AHashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Memo<K, V> {
    pub(crate) fn get(&self, key: &K, make: impl FnOnce(&K) -> V) -> V {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(key) {
            return known.clone();
        }
        let value = make(key);
        lock().insert(key.clone(), value.clone());
        value
    }
}
