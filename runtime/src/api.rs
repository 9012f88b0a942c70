//! Clients of the API server.

use std::error::Error;
use std::path::Path;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use tower::service_fn;

use crate::connector::{ApiError, connect};
use crate::error::chain;
use crate::throttle::{NotBefore, throttle_pause};

/// How often a throttled read is retried, each time after a pause of at most 10 s.
const READ_RETRIES: u32 = 5;

/// A client from a kubeconfig, or from the pod's service account without one. It sends nothing yet.
///
/// Rotated credentials are picked up: those of a service account within a minute, those of a
/// kubeconfig after a request has failed. Reads that the server throttles are retried a few times;
/// writes are not.
///
/// # Errors
/// When the kubeconfig or the service account cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    Ok(around(connect(kubeconfig).await?, retry_reads))
}

/// A client that retries nothing and sets `not_before` when the server throttles a request. The caller
/// waits for it before the next request.
///
/// # Errors
/// When the kubeconfig or the service account cannot be used.
pub async fn no_retry_client(
    kubeconfig: Option<&Path>,
    not_before: NotBefore,
) -> Result<Client, ApiError> {
    let client = connect(kubeconfig).await?;
    Ok(around(client, move |client, request| {
        let not_before = not_before.clone();
        async move {
            let response = client.send(request).await?;
            not_before.observe(&response);
            Ok(response)
        }
    }))
}

/// Wraps a client: `send` sees each request and its response.
fn around<Sent>(
    client: Client,
    send: impl Fn(Client, Request<Body>) -> Sent + Send + 'static,
) -> Client
where
    Sent: Future<Output = kube::Result<Response<Body>>> + Send + 'static,
{
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request| send(client.clone(), request));
    Client::new(service, namespace)
}

/// Sends a request, and sends a read again while the server throttles it.
async fn retry_reads(client: Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    if request.method() != Method::GET {
        return client.send(request).await;
    }
    let (parts, _) = request.into_parts();
    for _ in 0..READ_RETRIES {
        let request = Request::from_parts(parts.clone(), Body::empty());
        let response = client.send(request).await?;
        match throttle_pause(&response) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Ok(response),
        }
    }
    client.send(Request::from_parts(parts, Body::empty())).await
}

/// The text of an error with its causes. Of an answer of the API server it has the code and the message:
/// kube's own text is the whole object in Rust's debug format.
#[must_use]
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(source) = cause {
        if let Some(kube::Error::Api(status)) = source.downcast_ref() {
            return format!("API server answered {}: {}", status.code, status.message);
        }
        cause = source.source();
    }
    chain(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn answer_of_the_server_is_its_code_and_message() {
        #[derive(Debug, thiserror::Error)]
        #[error("the list failed")]
        struct Outer(#[source] kube::Error);

        let status = kube::core::Status::failure("not you", "Forbidden").with_code(403);
        let error = Outer(kube::Error::Api(status.boxed()));
        assert_eq!(in_words(&error), "API server answered 403: not you");
    }

    /// A client of a server that throttles all requests, and how many it got.
    fn throttled() -> (Client, Arc<AtomicU32>) {
        let requests = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&requests);
        let answers = move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let response = Response::builder().status(429);
            std::future::ready(response.header("Retry-After", "86400").body(Body::empty()))
        };
        (Client::new(service_fn(answers), "default"), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_read_is_retried_and_write_is_not() {
        for (method, requests, seconds) in [("GET", 6, 50), ("PATCH", 1, 0), ("POST", 1, 0)] {
            let (client, counted) = throttled();
            let request = Request::builder().method(method).uri("/");
            let began = tokio::time::Instant::now();
            let response = retry_reads(client, request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.unwrap().status(), 429, "{method}");
            assert_eq!(counted.load(Ordering::Relaxed), requests, "{method}");
            assert_eq!(began.elapsed().as_secs(), seconds, "{method}");
        }
    }
}
