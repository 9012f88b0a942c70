//! The agent in the guest, and the guest as a Node.

use std::time::Duration;

use super::{Guest, GuestError};
use crate::nodes::NodeSpec;
use crate::wait::eventually;

/// Where the kubeconfig lies in a guest that joins a cluster.
pub(super) const KUBECONFIG: &str = "/etc/nettune/kubeconfig";
const LOG: &str = "/var/log/agent.log";
const PID: &str = "/run/agent.pid";
/// The guest's own port: it is alone in there.
const LISTEN: &str = "127.0.0.1:9400";
/// After a full table drops its first packet, a new connection is faster than TCP's own retries.
const PAGE_DEADLINE: Duration = Duration::from_secs(10);
const START_DEADLINE: Duration = Duration::from_secs(120);

impl Guest {
    /// Starts the agent in the background for the node `node_name`, and waits until it listens.
    pub async fn start_agent(&self, node_name: &str, more_args: &[&str]) -> Result<(), GuestError> {
        let args = more_args.join(" ");
        let script = format!(
            "KUBECONFIG={KUBECONFIG} setsid nettune-agent --node-name {node_name} --listen {LISTEN} {args} \
             </dev/null >>{LOG} 2>&1 & echo $! >{PID}"
        );
        self.ok(&script).await?;
        let listens = eventually("the agent in the guest", START_DEADLINE, || {
            self.agent_page("healthz")
        });
        match listens.await {
            Ok(_) => Ok(()),
            Err(timed_out) => Err(GuestError::Failed {
                command: script,
                status: -1,
                stderr: format!("{timed_out}\n{}", self.agent_log().await?),
            }),
        }
    }

    /// Ends the agent with SIGTERM and waits until it is gone.
    pub async fn stop_agent(&self) -> Result<(), GuestError> {
        let gone = format!(
            "for i in $(seq 50); do [ -e /proc/$(cat {PID}) ] || exit 0; usleep 100000; done; exit 1"
        );
        self.ok(&format!("kill $(cat {PID}) && {gone}"))
            .await
            .map(drop)
    }

    /// Ends the agent with SIGKILL, as a crash does.
    pub async fn kill_agent(&self) -> Result<(), GuestError> {
        self.ok(&format!("kill -9 $(cat {PID})")).await.map(drop)
    }

    /// Everything that the agent has logged.
    pub async fn agent_log(&self) -> Result<String, GuestError> {
        self.ok(&format!("cat {LOG}")).await
    }

    /// A page of the agent's: `metrics`, `healthz` or `readyz`.
    pub async fn agent_page(&self, name: &str) -> Result<String, GuestError> {
        let script = format!("exec wget -q -O - http://{LISTEN}/{name}");
        self.ok_within(&script, PAGE_DEADLINE).await
    }

    /// What a kubelet in the guest would say of it: a worker with its kernel, boot id, memory and processors.
    pub async fn node_spec(&self, name: &str, index: u16) -> Result<NodeSpec, GuestError> {
        let facts = "cat /proc/sys/kernel/random/boot_id; uname -r; nproc; awk '/^MemTotal/ {print $2}' /proc/meminfo";
        let printed = self.ok(facts).await?;
        let worker = NodeSpec::worker(name, index);
        let facts: Vec<&str> = printed.lines().collect();
        let [boot_id, kernel, cpus, memory] = facts[..] else {
            return Err(GuestError::Failed {
                command: "facts of the node".to_owned(),
                status: 0,
                stderr: printed,
            });
        };
        Ok(NodeSpec {
            boot_id: boot_id.to_owned(),
            kernel: kernel.to_owned(),
            cpus: cpus.parse().unwrap_or(worker.cpus),
            memory_kib: memory.parse().unwrap_or(worker.memory_kib),
            ..worker
        })
    }
}
