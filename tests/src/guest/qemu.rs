//! What QEMU is started with.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use super::modules::LoadOrder;
use super::{API_SERVER_PORT, GuestConfig, GuestError, KERNEL_LOG, QEMU_LOG, image};
use crate::artifacts::debian;
use crate::control_plane::ADDRESS_IN_GUEST;
use crate::process::command;

/// Gets everything that a boot needs: the command, and what to insert for each module that can be loaded later.
pub(super) fn prepare(
    config: &GuestConfig,
    dir: &Path,
) -> Result<(Command, LoadOrder), GuestError> {
    debian::install_programs()?;
    let kernel = debian::kernel()?;
    let qemu = debian::find_program("qemu-system-x86_64").ok_or(GuestError::NoProgram {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
    })?;
    let busybox = debian::find_program("busybox").ok_or(GuestError::NoProgram {
        program: "busybox",
        package: "busybox-static",
    })?;
    let initramfs = dir.join("initramfs");
    let load_order = image::write(config, &kernel, &busybox, &initramfs)?;

    let mut command = command(qemu);
    let messages = File::create(dir.join(QEMU_LOG)).map_err(|source| GuestError::Io {
        attempt: "create a log",
        source,
    })?;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(messages);
    // Always TCG: KVM inside of a virtual machine may hang.
    command.args([
        "-machine",
        "accel=tcg",
        "-cpu",
        "max",
        "-nographic",
        "-nodefaults",
        "-no-reboot",
    ]);
    command.args([
        "-smp",
        &config.cpus.to_string(),
        "-m",
        &config.memory_mib.to_string(),
    ]);
    command
        .arg("-serial")
        .arg(format!("file:{}", dir.join(KERNEL_LOG).display()));
    // The console of commands is no second serial line: its bytes get lost when the machine is busy.
    command.args(["-chardev", "stdio,id=console"]);
    command.args(["-device", "virtio-serial-pci"]);
    command.args(["-device", "virtserialport,chardev=console"]);
    command
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    if let Some(port) = config.api_server_port {
        command.args(network(port, &busybox));
    }
    Ok((command, load_order))
}

/// No network but one address, behind which QEMU runs a netcat to the API server for each connection.
fn network(port: u16, busybox: &Path) -> [String; 4] {
    let forward = format!(
        "tcp:{ADDRESS_IN_GUEST}:{API_SERVER_PORT}-cmd:{} nc 127.0.0.1 {port}",
        busybox.display()
    );
    [
        "-netdev".to_owned(),
        format!("user,id=n,restrict=on,guestfwd={forward}"),
        "-device".to_owned(),
        "virtio-net-pci,netdev=n,romfile=".to_owned(),
    ]
}
