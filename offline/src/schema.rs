//! Checks fields against the schema of the CRD, as the API server does.
//!
//! serde ignores unknown fields, so that a misspelled `conntrak` would plan for nothing at all,
//! and it accepts a list for an object. Why this is not a crate: docs/design/0013-own-schema-check.md.
//! The rules in CEL are checked by the conversion to a policy.

use std::fmt;

use serde_json::{Map, Value};

/// A field that the schema does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("{path} is not a known field; known fields: {known}")]
    Unknown { path: String, known: String },
    #[error("{path} is required")]
    Missing { path: String },
    #[error("{path} is {value}; expected {expected}")]
    Value {
        path: String,
        /// As given, shortened.
        value: String,
        expected: String,
    },
}

impl FieldError {
    pub(crate) fn value(path: &str, value: &Value, expected: String) -> Self {
        let mut value = value.to_string();
        if let Some((end, _)) = value.char_indices().nth(40) {
            value.truncate(end);
            value.push('…');
        }
        Self::Value {
            path: path.to_owned(),
            value,
            expected,
        }
    }
}

/// All fields of an object that the schema does not allow.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldErrors(pub(crate) Vec<FieldError>);

/// A file of the wrong kind must not fill the screen or the log.
const MOST_PRINTED: usize = 10;

impl std::error::Error for FieldErrors {}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = self.0.iter().take(MOST_PRINTED).map(ToString::to_string);
        f.write_str(&printed.collect::<Vec<_>>().join("; "))?;
        match self.0.len().saturating_sub(MOST_PRINTED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Checks a value with everything in it; `path` is its own.
///
/// # Errors
/// With every field that is wrong.
pub fn check(schema: &Value, value: &Value, path: &str) -> Result<(), FieldErrors> {
    let mut errors = Vec::new();
    check_value(schema, value, path, &mut errors);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(FieldErrors(errors))
    }
}

fn check_value(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() {
        return; // the same as absent
    }
    let allowed = schema.get("enum").and_then(Value::as_array);
    let expected = match (schema.get("type").and_then(Value::as_str), value) {
        _ if allowed.is_some_and(|allowed| !allowed.contains(value)) => {
            let allowed = allowed.into_iter().flatten().filter_map(Value::as_str);
            format!("one of {}", allowed.collect::<Vec<_>>().join(", "))
        }
        (Some("object"), Value::Object(fields)) => {
            return check_object(schema, fields, path, errors);
        }
        (Some("array"), Value::Array(items)) => {
            let schema = schema.get("items").unwrap_or(&Value::Null);
            for (index, item) in items.iter().enumerate() {
                check_value(schema, item, &format!("{path}[{index}]"), errors);
            }
            return;
        }
        (Some("integer"), Value::Number(number))
            if number
                .as_i64()
                .is_some_and(|number| in_range(schema, number)) =>
        {
            return;
        }
        (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) | (None, _) => {
            return;
        }
        (Some("object"), _) => "an object".to_owned(),
        (Some("array"), _) => "a list".to_owned(),
        (Some("integer"), _) => range(schema),
        (Some("string"), _) => "a string in quotes".to_owned(),
        (Some(other), _) => format!("a {other}"),
    };
    errors.push(FieldError::value(path, value, expected));
}

fn check_object(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match known.get(name) {
            Some(schema) => check_value(schema, value, &path, errors),
            None => {
                let known: Vec<_> = known.keys().map(String::as_str).collect();
                let known = known.join(", ");
                errors.push(FieldError::Unknown { path, known });
            }
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            errors.push(FieldError::Missing {
                path: format!("{path}.{name}"),
            });
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_wrong_fields_are_reported_at_once() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string"},
            "b": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 5}},
        }});
        let value = json!({"b": [5, 6, 1.5], "c": null});
        let FieldErrors(errors) = check(&schema, &value, "spec").unwrap_err();
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "spec.b[1] is 6; expected a whole number from 1 to 5",
                "spec.b[2] is 1.5; expected a whole number from 1 to 5",
                "spec.c is not a known field; known fields: a, b",
                "spec.a is required",
            ]
        );
    }
}
