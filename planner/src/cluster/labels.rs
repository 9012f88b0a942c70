//! A node's labels in little memory: a real node has dozens.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::intern::Interner;

/// The sorted keys of one node's labels. Nodes of a pool share them.
type Keys = [Box<str>];

/// Labels of one node. A map of strings takes about 4 KB for twenty of them, this a tenth.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    keys: Arc<Keys>,
    /// Where each value ends.
    ends: Box<[usize]>,
    /// All values, concatenated.
    values: Box<str>,
}

impl Labels {
    pub(crate) fn of(labels: &BTreeMap<String, String>) -> Self {
        let mut values = String::with_capacity(labels.values().map(String::len).sum());
        let ends = labels.values().map(|value| {
            values.push_str(value);
            values.len()
        });
        Self {
            ends: ends.collect(),
            keys: labels.keys().map(|key| key.as_str().into()).collect(),
            values: values.into(),
        }
    }

    /// Shares the keys with other nodes.
    pub(crate) fn sharing(self, keys: &mut Interner<Keys>) -> Self {
        Self {
            keys: keys.intern(self.keys),
            ..self
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let index = self
            .keys
            .binary_search_by(|known| (**known).cmp(key))
            .ok()?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.values.get(start..*self.ends.get(index)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_label_is_found_and_no_other(
            labels in proptest::collection::btree_map("[a-e./ü]{0,3}", "[a-z-ü]{0,5}", 0..12),
            other in "[a-e./ü]{0,3}",
        ) {
            let packed = Labels::of(&labels);
            for (key, value) in &labels {
                prop_assert_eq!(packed.get(key), Some(value.as_str()));
            }
            prop_assert_eq!(packed.get(&other), labels.get(&other).map(String::as_str));
        }
    }

    #[test]
    fn nodes_of_a_pool_share_their_keys() {
        let labels = |zone: &str| {
            let pairs = [("zone", zone), ("arch", "amd64")];
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
            Labels::of(&BTreeMap::from(pairs))
        };
        let mut pool = Interner::default();
        let (a, b) = (
            labels("a").sharing(&mut pool),
            labels("b").sharing(&mut pool),
        );
        assert!(Arc::ptr_eq(&a.keys, &b.keys));
        assert_eq!((a.get("zone"), b.get("zone")), (Some("a"), Some("b")));
    }
}
