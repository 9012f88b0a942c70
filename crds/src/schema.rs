//! What the API server would say of an object's fields: the CRD's own schema, walked.
//!
//! serde passes over fields that it does not know, so a misspelt `conntrak` would plan for nothing
//! at all, in silence. The rules that need CEL are those that the conversion to a policy checks.

use serde_json::{Map, Value};

/// A field that the schema does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No field of this kind.
    #[error("{path} is not a field of this kind; there are {known}")]
    Unknown {
        /// Its path in the object.
        path: String,
        /// The fields that there are.
        known: String,
    },
    /// A field that must be there.
    #[error("{path} is missing")]
    Missing {
        /// Its path in the object.
        path: String,
    },
    /// A value that the field does not take.
    #[error("{path} is {value}; write {wanted}")]
    Value {
        /// Its path in the object.
        path: String,
        /// As given, shortened.
        value: String,
        /// What it takes.
        wanted: String,
    },
}

/// Checks a value and all that is in it; `path` is its own.
pub(crate) fn check(schema: &Value, value: &Value, path: &str) -> Result<(), Refused> {
    if value.is_null() {
        return Ok(()); // as good as left out
    }
    let refused = |wanted: String| {
        Err(Refused::Value {
            path: path.to_owned(),
            value: brief(value),
            wanted,
        })
    };
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
        return refused(format!("one of {}", allowed.join(", ")));
    }
    match (schema.get("type").and_then(Value::as_str), value) {
        (Some("object"), Value::Object(fields)) => object(schema, fields, path),
        (Some("array"), Value::Array(items)) => {
            let none = Value::Null;
            let schema = schema.get("items").unwrap_or(&none);
            let mut indexed = items.iter().enumerate();
            indexed.try_for_each(|(index, item)| check(schema, item, &format!("{path}[{index}]")))
        }
        (Some("integer"), Value::Number(number)) => match number.as_i64() {
            Some(number) if in_range(schema, number) => Ok(()),
            _ => refused(range(schema)),
        },
        (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) | (None, _) => {
            Ok(())
        }
        (Some("object"), _) => refused("fields below it".to_owned()),
        (Some("array"), _) => refused("a list".to_owned()),
        (Some("integer"), _) => refused(range(schema)),
        (Some("string"), _) => refused("text, in quotes".to_owned()),
        (Some(other), _) => refused(format!("a {other}")),
    }
}

fn object(schema: &Value, fields: &Map<String, Value>, path: &str) -> Result<(), Refused> {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else {
        return Ok(());
    };
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        let Some(schema) = known.get(name) else {
            let known: Vec<_> = known.keys().map(String::as_str).collect();
            let known = known.join(", ");
            return Err(Refused::Unknown { path, known });
        };
        check(schema, value, &path)?;
    }
    let required = schema.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    match required.find(|name| !fields.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(Refused::Missing {
            path: format!("{path}.{name}"),
        }),
    }
}

fn bound(schema: &Value, name: &str) -> Option<f64> {
    schema.get(name).and_then(Value::as_f64)
}

fn in_range(schema: &Value, number: i64) -> bool {
    let number = number as f64;
    bound(schema, "minimum").is_none_or(|least| least <= number)
        && bound(schema, "maximum").is_none_or(|most| number <= most)
}

fn range(schema: &Value) -> String {
    match (bound(schema, "minimum"), bound(schema, "maximum")) {
        (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
        _ => "a whole number".to_owned(),
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
