//! Traces of an operator, as a collector receives them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec, Program, eventually, nodes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

const SOON: Duration = Duration::from_secs(30);

/// What was received: each span with the name of its service.
type Received = Arc<Mutex<Vec<(String, Span)>>>;

/// A collector that takes OTLP over HTTP, and says where it listens.
async fn collector() -> anyhow::Result<(Received, String)> {
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/v1/traces", post(take))
        .with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((received, format!("http://{address}")))
}

async fn take(State(received): State<Received>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut received = received.lock().unwrap_or_else(|error| error.into_inner());
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let service = resource
            .attributes
            .iter()
            .find(|of| of.key == "service.name");
        let service = service.and_then(|service| service.value.as_ref()?.value.as_ref());
        let service = match service {
            Some(Value::StringValue(name)) => name.clone(),
            other => format!("{other:?}"),
        };
        for of_scope in of_resource.scope_spans {
            let spans = of_scope.spans.into_iter();
            received.extend(spans.map(|span| (service.clone(), span)));
        }
    }
    StatusCode::OK
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|of| of.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

// The end of the operator is waited for in one thread, and the collector answers in another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_writes_and_requests_are_spans_and_a_request_is_part_of_its_write()
-> anyhow::Result<()> {
    let (received, endpoint) = collector().await?;
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.install_crds().await?;
    let client = control_plane.client().await?;
    nodes::create(&client, &NodeSpec::worker("node-0", 0)).await?;
    let mut operator = Program::operator(&control_plane, &["--otlp-endpoint", &endpoint]).await?;
    control_plane
        .apply("{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: default}, spec: {neighbors: {}}}")
        .await?;
    eventually("the profile", SOON, || async {
        control_plane.kubectl_ok(&["get", "nnp", "node-0"]).await
    })
    .await?;
    // They are sent every few seconds, and what is left at the end.
    operator.process_mut().stop()?;
    let received = received.lock().unwrap_or_else(|error| error.into_inner());
    ensure!(
        received
            .iter()
            .all(|(service, _)| service == "nettune-operator")
    );
    let spans = || received.iter().map(|(_, span)| span);
    let decide = spans().find(|span| span.name == "decide");
    decide.context("a span of a decision")?;
    let write = spans()
        .find(|span| span.name == "write" && attribute(span, "verb") == Some("Create"))
        .context("a span of the write")?;
    assert_eq!(attribute(write, "name"), Some("node-0"));
    assert_eq!(attribute(write, "outcome"), Some("Ok"));
    let request = spans().find(|span| span.parent_span_id == write.span_id);
    let request = request.context("a span of the write's request")?;
    assert_eq!(request.trace_id, write.trace_id);
    assert_eq!(
        attribute(request, "http.method"),
        Some("POST"),
        "{request:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_address_that_is_none_ends_the_start_and_says_so() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    let failed = Program::operator(&control_plane, &["--otlp-endpoint", "not a url"]).await;
    let said = format!("{:#}", anyhow::anyhow!(failed.err().context("it started")?));
    ensure!(said.contains("not a url"), "{said}");
    Ok(())
}
