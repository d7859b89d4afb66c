//! Tries of talking out, and one honest helper of the suite: a connection made as another user.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr};

use crate::raw::{self, Word};
use crate::{Answer, Arguments, Attempt, Refused, look_up};

const TABLE: &[(&str, Attempt)] = &[
    ("connect-tcp", connect_tcp),
    ("bind-tcp", bind_tcp),
    ("send-udp", send_udp),
    ("connect-unix", connect_unix),
    ("send-unix", send_unix),
    ("connect-abstract", connect_abstract),
    ("send-abstract", send_abstract),
    ("pass-descriptor", pass_descriptor),
    ("bind-unix", bind_unix),
    ("fast-open", fast_open),
    ("fast-open-option", fast_open_option),
    ("unix-names", unix_names),
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

/// A datagram to an abstract name, without a connection.
fn send_abstract(arguments: &Arguments) -> Answer {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(arguments.text(0)?)?;
    UnixDatagram::unbound()?.send_to_addr(b"probe", &address)?;
    Ok(String::new())
}

/// Makes a socket with a name in the filesystem, and leaves it there.
fn bind_unix(arguments: &Arguments) -> Answer {
    UnixListener::bind(arguments.text(0)?)?;
    Ok(String::new())
}

/// Connects by sending (`MSG_FASTOPEN`), which no rule on connections sees.
fn fast_open(arguments: &Arguments) -> Answer {
    let SocketAddr::V4(to) = address(arguments)? else {
        return Err(Refused::Usage("an IPv4 address".to_owned()));
    };
    const SENDTO: i64 = 44;
    const FASTOPEN: u64 = 0x2000_0000;
    const AF_INET: u8 = 2;
    let socket = internet_stream()?;
    let number = Word::Number(u64::from(socket.as_raw_fd().cast_unsigned()));
    let [high, low] = to.port().to_be_bytes();
    let address = [&[AF_INET, 0, high, low], &to.ip().octets()[..], &[0; 8]].concat();
    let (bytes, length) = (Word::Buffer(b"probe".to_vec()), Word::Number(5));
    let mut words = [number, bytes, length, Word::Number(FASTOPEN), Word::Buffer(address), Word::Number(16)];
    raw::call(SENDTO, &mut words).map_err(Refused::Errno)?;
    Ok(String::new())
}

/// Has the next connection be made by the first write.
fn fast_open_option(_: &Arguments) -> Answer {
    const SETSOCKOPT: i64 = 54;
    const TCP: u64 = 6;
    const FASTOPEN_CONNECT: u64 = 30;
    let socket = internet_stream()?;
    let number = u64::from(socket.as_raw_fd().cast_unsigned());
    let on = Word::Buffer(vec![1, 0, 0, 0]);
    let words = [number, TCP, FASTOPEN_CONNECT].map(Word::Number);
    let mut words: Vec<Word> = words.into_iter().chain([on, Word::Number(4)]).collect();
    raw::call(SETSOCKOPT, &mut words).map_err(Refused::Errno)?;
    Ok(String::new())
}

fn internet_stream() -> nix::Result<std::os::fd::OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType};
    nix::sys::socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)
}

/// Looks for an abstract name of another's among those that the kernel lists.
fn unix_names(arguments: &Arguments) -> Answer {
    let names = std::fs::read_to_string("/proc/net/unix")?;
    let wanted = arguments.text(0)?;
    if names.contains(wanted) { Ok(String::new()) } else { Err(Refused::NotSo("it isn't listed".to_owned())) }
}
