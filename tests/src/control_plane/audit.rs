//! The API server's audit log: who wrote what, and the response.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Recorded verbs: all writes, and `list`, which a lost watch causes.
const VERBS: [&str; 7] = [
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "list",
    "watch",
];

/// The audit log of a control plane, for the objects of nettune.
#[derive(Debug)]
pub struct Audit {
    dir: TempDir,
}

/// A position in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark(u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub user: String,
    /// Such as `create` or `watch`.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural and the subresource, such as `nodenetworkprofiles/status`.
    pub resource: String,
    /// The object's name; empty where the request names none, as for `create`.
    pub name: String,
    /// Path and query.
    pub uri: String,
    pub code: u16,
}

impl Request {
    /// Whether it writes.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it succeeded.
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            verb,
            resource,
            name,
            code,
            ..
        } = self;
        write!(f, "{user}: {verb} {resource} {name} -> {code}")
    }
}

impl Audit {
    /// Writes the policy for an API server that is yet to be started.
    pub fn new() -> io::Result<Self> {
        Self::of(&[
            json!({"level": "Metadata", "verbs": VERBS, "resources": [{"group": "nettune.dev"}]}),
        ])
    }

    /// The same, for all requests of these users instead.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn of_users(users: &[&str]) -> io::Result<Self> {
        Self::of(&[json!({"level": "Metadata", "users": users})])
    }

    fn of(recorded: &[Value]) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("nettune-audit-")
            .tempdir()?;
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": recorded.iter().chain([&json!({"level": "None"})]).collect::<Vec<_>>(),
        });
        std::fs::write(dir.path().join("policy.json"), policy.to_string())?;
        Ok(Self { dir })
    }

    /// Flags of the API server.
    pub fn flags(&self) -> Vec<String> {
        vec![
            format!(
                "--audit-policy-file={}",
                self.dir.path().join("policy.json").display()
            ),
            format!("--audit-log-path={}", self.log().display()),
        ]
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    /// The end of the log now.
    pub fn mark(&self) -> Mark {
        Mark(std::fs::metadata(self.log()).map_or(0, |log| log.len()))
    }

    /// Requests answered since then.
    pub fn since(&self, mark: Mark) -> io::Result<Vec<Request>> {
        let mut log = File::open(self.log())?;
        log.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        Ok(text.lines().filter_map(request).collect())
    }
}

/// One line; none if it is incomplete, as the last one may be.
fn request(line: &str) -> Option<Request> {
    let event: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let subresource = text(&object["subresource"]);
    let slash = if subresource.is_empty() { "" } else { "/" };
    Some(Request {
        user: text(&event["user"]["username"]),
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        resource: format!("{}{slash}{subresource}", text(&object["resource"])),
        name: text(&object["name"]),
        uri: text(&event["requestURI"]),
        code: u16::try_from(event["responseStatus"]["code"].as_u64()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_user_the_write_and_the_answer() {
        let line = r#"{"kind":"Event","stage":"ResponseComplete","verb":"patch","user":{"username":"agent"},
            "objectRef":{"resource":"nodenetworkprofiles","name":"a","apiGroup":"nettune.dev","subresource":"status"},
            "responseStatus":{"metadata":{},"code":409}}"#;
        let request = request(line).unwrap();
        assert_eq!(
            request.to_string(),
            "agent: patch nodenetworkprofiles/status a -> 409"
        );
        assert!(request.is_write() && !request.is_done());
        assert_eq!(super::request(&line[..40]), None);
    }
}
