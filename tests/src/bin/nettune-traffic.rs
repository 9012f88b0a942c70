//! Traffic for the guest that fills the kernel's tables.
//!
//! `neighbors ADDRESS COUNT` sends a datagram to each of so many addresses. `flows ADDRESS COUNT`
//! sends so many datagrams to different ports of one address after the other, 60,000 ports each.
//! `connections COUNT SECONDS` opens TCP connections over the loopback and holds them, and tries
//! others meanwhile. `lookups ADDRESS:PORT COUNT` sends two datagrams from one socket at once, so often;
//! `ports ADDRESS:PORT FROM FROM COUNT` opens TCP connections from the same port of two addresses at
//! once, from so many ports. `answers VALUE FILE...` writes a value to one file after the other, and prints
//! how many microseconds each time pass until the old one is back.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

const USAGE: &str = "neighbors ADDRESS COUNT | flows ADDRESS COUNT | connections COUNT SECONDS | \
                     lookups ADDRESS:PORT COUNT | ports ADDRESS:PORT FROM FROM COUNT | answers VALUE FILE...";

/// Ports of one address that `flows` uses.
const PORTS: u32 = 60_000;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// Who looks more often takes the processor from who is to answer.
const LOOK: Duration = Duration::from_millis(2);

/// Between two writes; out of step with whoever looks every 100 ms.
const PAUSE: Duration = Duration::from_millis(233);

/// The first source port of `ports`.
const FIRST_PORT: u16 = 40_000;

/// How long a connection that is not answered is waited for: its first packet was dropped.
const PATIENCE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nettune-traffic {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> io::Result<()> {
    match *arguments {
        ["neighbors", address, count] => neighbors(parse(address)?, parse(count)?),
        ["flows", address, count] => flows(parse(address)?, parse(count)?),
        ["connections", count, seconds] => {
            connections(parse(count)?, Duration::from_secs(parse(seconds)?))
        }
        ["lookups", to, count] => lookups(parse(to)?, parse(count)?),
        ["ports", to, one, two, count] => {
            ports(parse(to)?, [parse(one)?, parse(two)?], parse(count)?)
        }
        ["answers", value, ref files @ ..] => files.iter().try_for_each(|file| {
            writeln!(io::stdout(), "{}", answer(value, file)?.as_micros())?;
            std::thread::sleep(PAUSE);
            Ok(())
        }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    }
}

fn answer(value: &str, file: &str) -> io::Result<Duration> {
    let before = fs::read(file)?;
    let start = Instant::now();
    fs::write(file, value)?;
    while fs::read(file)? != before {
        if start.elapsed() > ANSWER {
            return Err(io::Error::new(io::ErrorKind::TimedOut, file));
        }
        std::thread::sleep(LOOK);
    }
    Ok(start.elapsed())
}

fn parse<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{text}? {USAGE}"));
    text.parse().map_err(|_| invalid())
}

fn neighbors(first: Ipv4Addr, count: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    for n in 0..count {
        let address = Ipv4Addr::from_bits(first.to_bits() + n);
        // A table that is full refuses it, which is what is wanted.
        let _ = socket.send_to(b"x", (address, 9));
    }
    Ok(())
}

fn flows(first: Ipv4Addr, count: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    for n in 0..count {
        let address = Ipv4Addr::from_bits(first.to_bits() + n / PORTS);
        let port = u16::try_from(1000 + n % PORTS).unwrap_or(u16::MAX);
        let _ = socket.send_to(b"x", (address, port));
    }
    Ok(())
}

/// The two lookups of one DNS query, for A and AAAA, so often.
fn lookups(to: SocketAddrV4, count: u32) -> io::Result<()> {
    for _ in 0..count {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let lookup = |name: &'static [u8]| socket.send_to(name, to).map(drop);
        at_once(|| lookup(b"A"), || lookup(b"AAAA"))?;
    }
    Ok(())
}

/// Two connections of which SNAT would like to keep the source port, from so many ports.
fn ports(to: SocketAddrV4, from: [Ipv4Addr; 2], count: u16) -> io::Result<()> {
    for port in FIRST_PORT..FIRST_PORT + count {
        let connect = |address| {
            let (flags, type_) = (SocketFlags::NONBLOCK, SocketType::STREAM);
            let socket = net::socket_with(AddressFamily::INET, type_, flags, None)?;
            net::bind(&socket, &SocketAddrV4::new(address, port))?;
            match net::connect(&socket, &to) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        at_once(|| connect(from[0]), || connect(from[1]))?;
    }
    Ok(())
}

fn at_once(
    one: impl FnOnce() -> io::Result<()> + Send,
    other: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let both = Barrier::new(2);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            both.wait();
            one()
        });
        both.wait();
        let other = other();
        one.join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread")))?;
        other
    })
}

fn connections(count: usize, time: Duration) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let end = Instant::now() + time;
    let mut held = Vec::new();
    while Instant::now() < end {
        if held.len() < count
            && let Ok(near) = TcpStream::connect_timeout(&address, PATIENCE)
        {
            let (far, _) = listener.accept()?;
            held.push((near, far));
        } else {
            // Another one, for which there is no room.
            let _ = TcpStream::connect_timeout(&address, PATIENCE);
        }
    }
    // Both ends are still there.
    for (near, _) in &mut held {
        near.set_nonblocking(true)?;
        let read = near.read(&mut [0]);
        debug_assert!(read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    }
    Ok(())
}
