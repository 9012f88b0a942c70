//! A TCP proxy to the API server that a test can cut, reset, close and hold.
//!
//! TLS passes through unchanged, so clients and the API server do not notice it. It runs on its own threads and so
//! outlives the runtime of the test that made it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::connect_unspec;

/// A listener on loopback that passes everything on to one port of loopback. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

/// How a connection ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends get a FIN, as from a load balancer that stops.
    InOrder,
    /// Both ends get a RST, as from a load balancer that has lost its state.
    Reset,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Both ends of each connection.
    open: Vec<(TcpStream, TcpStream)>,
    /// New connections are ended at once.
    closed: bool,
    /// What clients send waits here.
    held: bool,
    /// The listener ends with its next connection.
    ended: bool,
    accepted: usize,
}

impl Proxy {
    /// Listens on a free port of loopback.
    pub fn to(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let own = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let listening = Arc::clone(&shared);
        thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || listening.listen(&listener, port))?;
        Ok(Self { shared, port: own })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has taken since its start.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }

    /// Ends all open connections, see [`Cut::InOrder`]; new ones are accepted.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Resets all open connections, see [`Cut::Reset`]; new ones are accepted.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Ends all connections now and after each pause, until [`Cutting::end`].
    #[must_use]
    pub fn cut_every(&self, pause: Duration, cut: Cut) -> Cutting {
        let shared = Arc::clone(&self.shared);
        let (ended, end) = channel::<()>();
        let thread = thread::spawn(move || {
            let mut cuts = 0;
            loop {
                match cut {
                    Cut::InOrder => shared.cut(),
                    Cut::Reset => shared.reset(),
                }
                cuts += 1;
                if end.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return cuts;
                }
            }
        });
        Cutting { ended, thread }
    }

    /// Ends all connections and takes no new ones, until [`Proxy::open`].
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.cut();
    }

    /// Takes new connections again.
    pub fn open(&self) {
        self.shared.state().closed = false;
    }

    /// Holds what clients send inside TLS, until [`Proxy::release`]. Connections can still be made, and the server's
    /// data passes. Data of a client that is gone by then still arrives, as if it waited for the answer: servers drop
    /// requests whose client is gone.
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    /// Passes on what was held.
    pub fn release(&self) {
        self.shared.state().held = false;
        self.shared.changed.notify_all();
    }
}

/// Repeated cuts.
#[derive(Debug)]
pub struct Cutting {
    ended: Sender<()>,
    thread: JoinHandle<usize>,
}

impl Cutting {
    /// Ends them and returns how many there were.
    pub fn end(self) -> usize {
        drop(self.ended);
        self.thread.join().unwrap_or(0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.close();
        self.release();
        // Wakes the listener, which then sees that it is to end.
        let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        for (client, server) in self.state().open.drain(..) {
            // One that has ended by itself cannot be ended.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    fn reset(&self) {
        for (client, server) in self.state().open.drain(..) {
            // The client first: what it sees must not be the end that its server's reset leads to. One that has ended
            // by itself cannot be reset.
            let _ = connect_unspec(&client);
            let _ = connect_unspec(&server);
        }
    }

    fn listen(self: Arc<Self>, listener: &TcpListener, port: u16) {
        for client in listener.incoming() {
            if self.state().ended {
                return;
            }
            // A client whose connection fails here tries again: to be without a connection is what it is made for.
            let _ = client.and_then(|client| self.connect(client, port));
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream, port: u16) -> io::Result<()> {
        if self.state().closed {
            return client.shutdown(Shutdown::Both);
        }
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ends = (client.try_clone()?, server.try_clone()?);
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        let gate = Arc::clone(self);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("proxy up").spawn(move || pass_on_records(from_client, &to_server, &gate))?;
        named("proxy down").spawn(move || pass_on(server, &client))?;
        let mut state = self.state();
        state.accepted += 1;
        state.open.push(ends);
        Ok(())
    }

    /// Waits while clients' data is held. Returns whether it was.
    fn wait(&self) -> bool {
        let state = self.state();
        let is_held = state.held;
        let held = |state: &mut State| state.held && !state.ended;
        drop(self.changed.wait_while(state, held));
        is_held
    }
}

/// Passes on until one side ends, and then ends the other one in this direction.
fn pass_on(mut from: TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    // One that has ended by itself cannot be ended.
    let _ = to.shutdown(Shutdown::Write);
}

/// The record that TLS 1.3 carries all in once keys are agreed on; the first of a client is the end of the handshake.
const APPLICATION_DATA: u8 = 23;

/// Passes on record by record, and waits before each that says something. The end is not passed on where that was held
/// up.
fn pass_on_records(mut from: TcpStream, mut to: &TcpStream, gate: &Shared) {
    let mut said = 0;
    let mut was_held = false;
    while let Ok(record) = record(&mut from) {
        if record.first() == Some(&APPLICATION_DATA) {
            said += 1;
            was_held |= said > 1 && gate.wait();
        }
        if to.write_all(&record).is_err() {
            break;
        }
    }
    if !was_held {
        // One that has ended by itself cannot be ended.
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// One record: its type, its version, its length, and so many bytes.
fn record(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record)?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    from.read_exact(&mut record[5..])?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers everything with itself.
    fn echo() -> io::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        Ok(port)
    }

    fn connected(proxy: &Proxy) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok(stream)
    }

    fn record_of(kind: u8, word: u8) -> [u8; 6] {
        [kind, 3, 3, 0, 1, word]
    }

    fn answer(stream: &mut TcpStream) -> io::Result<Option<u8>> {
        let mut buffer = [0; 6];
        match stream.read(&mut buffer)? {
            0 => Ok(None),
            _ => Ok(buffer.last().copied()),
        }
    }

    #[test]
    fn it_forwards_cuts_resets_and_closes() -> io::Result<()> {
        let proxy = Proxy::to(echo()?)?;
        let mut stream = connected(&proxy)?;
        stream.write_all(&record_of(22, b'a'))?;
        assert_eq!(answer(&mut stream)?, Some(b'a'));
        proxy.cut();
        assert_eq!(answer(&mut stream)?, None);
        proxy.close();
        let mut refused = connected(&proxy)?;
        assert!(!answer(&mut refused).is_ok_and(|said| said.is_some()));
        proxy.open();
        let mut stream = connected(&proxy)?;
        stream.write_all(&record_of(22, b'b'))?;
        assert_eq!(answer(&mut stream)?, Some(b'b'));
        proxy.reset();
        let reset = answer(&mut stream).map_err(|error| error.kind());
        assert_eq!(reset, Err(io::ErrorKind::ConnectionReset));
        let mut stream = connected(&proxy)?;
        stream.write_all(&record_of(22, b'c'))?;
        assert_eq!(answer(&mut stream)?, Some(b'c'));
        assert_eq!(proxy.accepted(), 3);
        Ok(())
    }

    #[test]
    fn held_data_arrives_later_even_from_a_client_that_is_gone() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let proxy = Proxy::to(listener.local_addr()?.port())?;
        let mut client = connected(&proxy)?;
        let (mut server, _) = listener.accept()?;
        server.set_read_timeout(Some(Duration::from_millis(300)))?;
        proxy.hold();
        for (kind, word) in [
            (22, b'h'),
            (APPLICATION_DATA, b'f'),
            (APPLICATION_DATA, b'w'),
        ] {
            client.write_all(&record_of(kind, word))?;
        }
        drop(client);
        // A connection is made, and nothing is said on it.
        assert_eq!(answer(&mut server)?, Some(b'h'));
        assert_eq!(answer(&mut server)?, Some(b'f'));
        assert!(answer(&mut server).is_err());
        proxy.release();
        assert_eq!(answer(&mut server)?, Some(b'w'));
        assert!(answer(&mut server).is_err(), "its end is not passed on");
        Ok(())
    }
}
