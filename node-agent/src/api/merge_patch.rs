//! The difference between two statuses, as a JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

/// The patch from `old` to `new`; `None` if they are equal. Objects are compared field by field, lists as
/// a whole, as the API server does.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (name, new) in new {
        let changed = match old.get(name) {
            Some(old) => difference(old, new),
            None => Some(new.clone()),
        };
        patch.extend(changed.map(|changed| (name.clone(), changed)));
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_statuses_have_no_difference() {
        let status = json!({"a": {"b": [1, 2]}});
        assert_eq!(difference(&status, &status.clone()), None);
    }

    #[test]
    fn patch_has_only_changes_and_complete_lists() {
        let old = json!({"same": 1, "list": [1, 2], "inner": {"same": 1, "gone": 2}, "gone": {}});
        let new = json!({"same": 1, "list": [1, 3], "inner": {"same": 1}, "more": {"x": 1}});
        assert_eq!(
            difference(&old, &new),
            Some(json!({"list": [1, 3], "inner": {"gone": null}, "gone": null, "more": {"x": 1}}))
        );
    }

    #[test]
    fn missing_status_is_written_completely() {
        assert_eq!(
            difference(&Value::Null, &json!({"a": 1})),
            Some(json!({"a": 1}))
        );
    }
}
