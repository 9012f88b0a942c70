//! A client that is made anew when a file that it was made from has changed.
//!
//! What kube reads again by itself, once a minute: the token and the CA of a pod's service account, and a
//! `tokenFile`. What it reads once: the kubeconfig, a client's certificate and its key, and a CA that a
//! kubeconfig names. These are watched over here.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::config::Kubeconfig;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tower::service_fn;

use crate::api::{ApiError, make};
use crate::error::chain;

/// How often it is looked whether the files have changed, when there are requests: a handful of calls
/// of stat(2).
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a request waits for the new client: a program that the kubeconfig names may take its time
/// to get a token. Then the old one does for now.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client was made from, to be made again.
pub(crate) struct Renewal {
    kubeconfig: PathBuf,
    look_every: Duration,
    made: Mutex<Made>,
}

struct Made {
    client: Client,
    files: Files,
    looked: Instant,
    /// Why the last try to make a new one failed: said once.
    complaint: Option<String>,
}

impl Renewal {
    pub(crate) async fn begin(kubeconfig: &Path) -> Result<Client, ApiError> {
        Self::looking_every(LOOK_EVERY, kubeconfig).await
    }

    async fn looking_every(look_every: Duration, kubeconfig: &Path) -> Result<Client, ApiError> {
        // Before they are read: what changes meanwhile is seen.
        let files = Files::of(kubeconfig);
        let client = make(Some(kubeconfig)).await?;
        let namespace = client.default_namespace().to_owned();
        let renewal = Arc::new(Self {
            kubeconfig: kubeconfig.to_owned(),
            look_every,
            made: Mutex::new(Made {
                client,
                files,
                looked: Instant::now(),
                complaint: None,
            }),
        });
        let service = service_fn(move |request| Arc::clone(&renewal).send(request));
        Ok(Client::new(service, namespace))
    }

    async fn send(self: Arc<Self>, request: Request<Body>) -> kube::Result<Response<Body>> {
        self.current().await.send(request).await
    }

    async fn current(&self) -> Client {
        let mut made = self.made.lock().await;
        if made.looked.elapsed() < self.look_every {
            return made.client.clone();
        }
        made.looked = Instant::now();
        if made.files.are_the_same() {
            return made.client.clone();
        }
        let files = Files::of(&self.kubeconfig);
        let path = self.kubeconfig.display();
        let complaint = match timeout(PATIENCE, make(Some(&self.kubeconfig))).await {
            Ok(Ok(client)) => {
                tracing::info!(kubeconfig = %path, "the kubeconfig or a file that it names has changed and was read again");
                (made.client, made.files, made.complaint) = (client, files, None);
                return made.client.clone();
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("not ready within {} s", PATIENCE.as_secs()),
        };
        if made.complaint.as_ref() != Some(&complaint) {
            tracing::warn!(kubeconfig = %path, error = complaint, "the kubeconfig or a file that it names has changed and cannot be used; going on with what was read before");
            made.complaint = Some(complaint);
        }
        made.client.clone()
    }
}

/// The files that a client was made from, each with what shows that it has changed.
#[derive(Debug)]
struct Files(Vec<(PathBuf, Option<Stamp>)>);

/// A file that is written in place has another time, one that is put in the place of another (also by a
/// link that is turned) another inode.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Files {
    /// All that a kubeconfig names, whichever context is used.
    fn of(kubeconfig: &Path) -> Self {
        let mut paths = vec![kubeconfig.to_owned()];
        if let Ok(read) = Kubeconfig::read_from(kubeconfig) {
            let clusters = read.clusters.into_iter().filter_map(|named| named.cluster);
            let users = read
                .auth_infos
                .into_iter()
                .filter_map(|named| named.auth_info);
            let of_clusters = clusters.filter_map(|cluster| cluster.certificate_authority);
            let of_users = users.flat_map(|user| [user.client_certificate, user.client_key]);
            paths.extend(of_clusters.map(PathBuf::from));
            paths.extend(of_users.flatten().map(PathBuf::from));
        }
        let stamped = paths.into_iter().map(|path| {
            let stamp = Stamp::of(&path).ok();
            (path, stamp)
        });
        Self(stamped.collect())
    }

    fn are_the_same(&self) -> bool {
        let mut files = self.0.iter();
        files.all(|(path, stamp)| Stamp::of(path).ok() == *stamp)
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let is = std::fs::metadata(path)?;
        Ok(Self {
            inode: (is.dev(), is.ino()),
            size: is.size(),
            modified: (is.mtime(), is.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http::{HeaderMap, header};

    use super::*;

    /// A server that answers with the Authorization header that it was asked with.
    async fn echo() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let authorization = |headers: HeaderMap| async move {
            let value = headers.get(header::AUTHORIZATION).cloned();
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        let router = Router::new().route("/", get(authorization));
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    fn kubeconfig(port: u16, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        )
    }

    async fn said(client: &Client) -> String {
        let request = Request::get("/").body(Vec::new()).unwrap();
        client.request_text(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_kubeconfig_that_has_changed_is_read_again_and_one_that_is_broken_is_not_used() {
        crate::tls::install();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let port = echo().await;
        std::fs::write(&path, kubeconfig(port, "token: one")).unwrap();
        let client = Renewal::looking_every(Duration::ZERO, &path).await.unwrap();
        assert_eq!(said(&client).await, "Bearer one");
        std::fs::write(&path, "clusters: [").unwrap();
        assert_eq!(said(&client).await, "Bearer one");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(said(&client).await, "Bearer one");
        std::fs::write(&path, kubeconfig(port, "token: two")).unwrap();
        assert_eq!(said(&client).await, "Bearer two");
    }

    #[tokio::test]
    async fn it_is_not_looked_at_for_each_request() {
        crate::tls::install();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let port = echo().await;
        std::fs::write(&path, kubeconfig(port, "token: one")).unwrap();
        let client = Renewal::begin(&path).await.unwrap();
        std::fs::write(&path, kubeconfig(port, "token: two")).unwrap();
        assert_eq!(said(&client).await, "Bearer one");
    }

    #[test]
    fn every_file_that_a_kubeconfig_names_is_watched_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let text = kubeconfig(1, "client-certificate: tls.crt, client-key: tls.key")
            .replace("server:", "certificate-authority: ca.crt, server:");
        std::fs::write(&path, text).unwrap();
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            std::fs::write(dir.path().join(name), "one").unwrap();
        }
        let mut files = Files::of(&path);
        assert_eq!(files.0.len(), 4, "{files:?}");
        assert!(files.are_the_same());
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            // As a secret's volume does it: another file in its place, of the same size.
            std::fs::write(dir.path().join("next"), "two").unwrap();
            std::fs::rename(dir.path().join("next"), dir.path().join(name)).unwrap();
            assert!(!files.are_the_same(), "{name}");
            files = Files::of(&path);
        }
    }
}
