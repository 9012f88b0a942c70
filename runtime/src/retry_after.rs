//! When a busy API server wants to be asked again, for those who have to know.
//!
//! It says so in a header, of which kube keeps nothing, beside a body of plain text. Here it becomes a
//! Status that says the same in `details.retryAfterSeconds`.

use http::response::Parts;
use http::{Response, StatusCode, header};
use kube::client::Body;
use kube::core::Status;
use kube::core::response::StatusDetails;

/// An answer that tells of a busy server, as a Status; any other one as it is.
pub(crate) async fn told(response: Response<Body>) -> kube::Result<Response<Body>> {
    let busy = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    if !busy {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = body.collect_bytes().await?;
    Ok(status(parts, &bytes))
}

fn status(parts: Parts, body: &[u8]) -> Response<Body> {
    let seconds = parts
        .headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok());
    let mut status = serde_json::from_slice(body).unwrap_or_else(|_| {
        let reason = parts.status.canonical_reason().unwrap_or_default();
        let text = String::from_utf8_lossy(body);
        Status::failure(text.trim(), &reason.replace(' ', "")).with_code(parts.status.as_u16())
    });
    if let Some(seconds) = seconds {
        let details = status.details.get_or_insert_with(|| StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        });
        details.retry_after_seconds = seconds;
    }
    let body = serde_json::to_vec(&status).unwrap_or_else(|_| body.to_vec());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = parts.status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status_of(code: u16, retry_after: Option<&str>, body: &str) -> Status {
        let mut response = Response::builder().status(code);
        if let Some(seconds) = retry_after {
            response = response.header(header::RETRY_AFTER, seconds);
        }
        let response = response.body(Body::from(body.as_bytes().to_vec())).unwrap();
        let body = told(response).await.unwrap().into_body();
        serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap()
    }

    fn seconds(status: &Status) -> Option<u32> {
        Some(status.details.as_ref()?.retry_after_seconds)
    }

    #[tokio::test]
    async fn what_priority_and_fairness_answers_becomes_a_status_that_says_when() {
        let status = status_of(
            429,
            Some("7"),
            "Too many requests, please try again later.\n",
        )
        .await;
        assert_eq!(seconds(&status), Some(7));
        assert_eq!((status.code, &*status.reason), (429, "TooManyRequests"));
        assert_eq!(status.message, "Too many requests, please try again later.");
    }

    #[tokio::test]
    async fn a_status_keeps_what_it_says_and_a_date_is_none_of_ours() {
        let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcd is away","reason":"ServiceUnavailable","code":503}"#;
        let status = status_of(503, Some("2"), body).await;
        assert_eq!(seconds(&status), Some(2));
        assert_eq!(status.message, "etcd is away");
        let dated = status_of(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), body).await;
        assert_eq!(seconds(&dated), None);
    }

    #[tokio::test]
    async fn other_answers_are_left_alone() {
        let response = Response::builder().status(409).header("x", "y");
        let response = response.body(Body::from(b"as it is".to_vec())).unwrap();
        let told = told(response).await.unwrap();
        assert_eq!(told.headers()["x"], "y");
        let body = told.into_body().collect_bytes().await.unwrap();
        assert_eq!(body, b"as it is"[..]);
    }
}
