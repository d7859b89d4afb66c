//! Tries of talking out, and one honest helper of the suite: a connection made as another user.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr};

use crate::{Answer, Arguments, Attempt, Refused, look_up};

const TABLE: &[(&str, Attempt)] = &[
    ("connect-tcp", connect_tcp),
    ("bind-tcp", bind_tcp),
    ("send-udp", send_udp),
    ("connect-unix", connect_unix),
    ("send-unix", send_unix),
    ("connect-abstract", connect_abstract),
    ("pass-descriptor", pass_descriptor),
    ("loopback-pair", loopback_pair),
    ("unix-pair", unix_pair),
    ("interfaces", interfaces),
    ("resolve", resolve),
    ("hand-over-connection", hand_over_connection),
];

pub(crate) fn find(name: &str) -> Option<Attempt> {
    look_up(TABLE, name)
}

fn address(arguments: &Arguments) -> Result<SocketAddr, Refused> {
    let text = arguments.text(0)?;
    text.parse().map_err(|_| Refused::Usage(format!("not an address and a port: {text}")))
}

fn connect_tcp(arguments: &Arguments) -> Answer {
    TcpStream::connect_timeout(&address(arguments)?, Duration::from_secs(2))?;
    Ok(String::new())
}

fn bind_tcp(arguments: &Arguments) -> Answer {
    TcpListener::bind(address(arguments)?)?;
    Ok(String::new())
}

fn send_udp(arguments: &Arguments) -> Answer {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(b"probe", address(arguments)?)?;
    Ok(String::new())
}

fn connect_unix(arguments: &Arguments) -> Answer {
    UnixStream::connect(arguments.text(0)?)?;
    Ok(String::new())
}

fn send_unix(arguments: &Arguments) -> Answer {
    UnixDatagram::unbound()?.send_to(b"probe", arguments.text(0)?)?;
    Ok(String::new())
}

fn connect_abstract(arguments: &Arguments) -> Answer {
    let address = UnixAddr::new_abstract(arguments.text(0)?.as_bytes())?;
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::empty(),
        None,
    )?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address)?;
    Ok(String::new())
}

/// Passes its working directory to whoever listens at a path.
fn pass_descriptor(arguments: &Arguments) -> Answer {
    let stream = UnixStream::connect(arguments.text(0)?)?;
    let directory = std::fs::File::open(".")?;
    let message = [ControlMessage::ScmRights(&[directory.as_raw_fd()])];
    let bytes = [IoSlice::new(b"x")];
    nix::sys::socket::sendmsg::<()>(stream.as_raw_fd(), &bytes, &message, MsgFlags::empty(), None)?;
    Ok(String::new())
}

/// An innocent need: a server and a client that talk over loopback.
fn loopback_pair(_: &Arguments) -> Answer {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"hello")
    });
    let mut text = String::new();
    TcpStream::connect(at)?.read_to_string(&mut text)?;
    server.join().map_err(|_| Refused::NotSo("the server's thread died".to_owned()))??;
    Ok(text)
}

/// An innocent need: a Unix socket in the working directory.
fn unix_pair(arguments: &Arguments) -> Answer {
    let path = arguments.text(0)?;
    let listener = UnixListener::bind(path)?;
    let mut client = UnixStream::connect(path)?;
    let (mut server, _) = listener.accept()?;
    server.write_all(b"hello")?;
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    std::fs::remove_file(path)?;
    Ok(text)
}

fn interfaces(_: &Arguments) -> Answer {
    let table = std::fs::read_to_string("/proc/net/dev")?;
    let names: Vec<&str> =
        table.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    Ok(names.join(" "))
}

fn resolve(arguments: &Arguments) -> Answer {
    use std::net::ToSocketAddrs as _;
    #[allow(clippy::disallowed_methods, reason = "the name service is what is tried")]
    let found = (arguments.text(0)?, 80).to_socket_addrs()?.next();
    found.map(|at| at.to_string()).ok_or_else(|| Refused::NotSo("no address".to_owned()))
}

/// Connects to a Unix socket as whoever runs this, passes the connection to the suite over standard input (a Unix
/// socket) and stays until that is closed: the daemon looks at its peer's process.
fn hand_over_connection(arguments: &Arguments) -> Answer {
    let stream = UnixStream::connect(arguments.text(0)?)?;
    let stdin = std::io::stdin();
    stockade_wire::socket::send(stdin.as_fd(), b"x", &[stream.as_fd()])?;
    drop(stream);
    let mut rest = Vec::new();
    stdin.lock().read_to_end(&mut rest)?;
    Ok(String::new())
}
