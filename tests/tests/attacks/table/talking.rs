//! Ways to talk out.

use super::{
    Attack, FAMILY, FLAT, Filter, FlatFilter, GONE, Identity, Landlock, Namespaces, ROOTED, Twin,
    UNREACHABLE, attack,
};

const EMPTY: &str = "elsewhere the network namespace has nothing to reach";

const fn family(name: &'static str) -> Attack {
    attack(name, name, FAMILY)
}

const fn roots(name: &'static str) -> Attack {
    family(name).by(&[Identity, Filter]).twin(Twin::Root)
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("tcp-to-the-host", "connect-tcp 127.0.0.1:{port}", UNREACHABLE).by(&[Namespaces, Landlock, FlatFilter]),
    attack("tcp-to-the-host-from-loopback", "connect-tcp 127.0.0.1:{port}", UNREACHABLE)
        .by(&[Namespaces])
        .only(&["loopback"], "only `loopback` has one"),
    attack("udp-to-the-host", "send-udp 127.0.0.1:{udp}", UNREACHABLE).by(&[Namespaces, FlatFilter]),
    attack("udp-out-of-loopback", "send-udp 192.0.2.1:53", UNREACHABLE)
        .by(&[Namespaces])
        .only(&["loopback"], "only `loopback` has one"),
    attack("connect-by-sending", "fast-open 127.0.0.1:{port}", UNREACHABLE).by(&[Namespaces, FlatFilter]),
    attack("listen", "bind-tcp 0.0.0.0:0", UNREACHABLE).by(&[Landlock, Filter]).only(FLAT, EMPTY),
    attack("abstract-socket-of-the-host", "connect-abstract {abstract}", &["errno=111", "errno=1"])
        .by(&[Namespaces, Landlock]),
    attack("datagram-to-an-abstract-socket", "send-abstract {abstract}-datagrams", &["errno=111", "errno=1"])
        .by(&[Namespaces, Landlock]),
    attack("names-of-the-hosts-sockets", "unix-names {abstract}", &["not-so", "errno=2", "errno=13", "errno=1"])
        .by(&[Namespaces])
        .only(
            &["strict", "default"],
            "`moderate` and `minimal` are in the host's network namespace, whose /proc/net lists sockets, connections and interfaces",
        ),
    attack("socket-of-the-host", "connect-unix {socket}", GONE).by(&[Namespaces, FlatFilter]),
    attack("datagram-to-a-socket-of-the-host", "send-unix {datagrams}", GONE)
        .by(&[Namespaces])
        .only(ROOTED, "at `minimal` a datagram can be sent to any socket that the user may write to"),
    attack("descriptor-to-the-host", "pass-descriptor {socket}", GONE).by(&[Namespaces, FlatFilter]),
    roots("packet-socket"),
    roots("packet-socket-high-bits"),
    roots("raw-socket"),
    roots("raw-socket-of-ipv6"),
    family("ping-socket"),
    family("ping-socket-of-ipv6"),
    family("sctp"),
    family("dccp"),
    family("udp-lite"),
    family("multipath-tcp"),
    family("multipath-tcp-of-ipv6"),
    family("internet-stream").only(FLAT, EMPTY),
    family("internet-stream-of-ipv6").only(FLAT, EMPTY),
    family("internet-datagram").only(FLAT, EMPTY),
    family("internet-datagram-of-ipv6").only(FLAT, EMPTY),
    family("netlink-route").only(FLAT, EMPTY),
    family("netlink-sock-diag"),
    family("netlink-xfrm"),
    family("netlink-audit"),
    family("netlink-connector"),
    family("netlink-netfilter"),
    family("netlink-uevent"),
    family("netlink-generic"),
    family("vsock"),
    family("kernel-crypto"),
    roots("key-management"),
    family("bluetooth"),
    roots("express-data-path"),
    family("can-bus"),
    family("tipc"),
    family("kernel-connection-multiplexor"),
    family("reliable-datagrams"),
    family("smc"),
    family("rxrpc"),
    family("point-to-point"),
    family("nfc"),
    family("ieee-802-15-4"),
    family("amateur-radio"),
    attack("udp-past-ports", "send-udp 127.0.0.1:{udp}", UNREACHABLE).only(PORTS, LISTED),
    attack("connection-past-ports", "connect-tcp 127.0.0.1:{port}", UNREACHABLE).by(&[Landlock]).only(PORTS, LISTED),
    attack("connect-by-sending-past-ports", "fast-open 127.0.0.1:{port}", UNREACHABLE).only(PORTS, LISTED),
    attack("connect-by-writing-past-ports", "fast-open-option", UNREACHABLE).by(&[Filter]).only(PORTS, LISTED),
    attack("multipath-past-ports", "multipath-tcp", FAMILY).only(PORTS, LISTED),
    attack("listen-past-ports", "bind-tcp 0.0.0.0:0", UNREACHABLE).by(&[Landlock]).only(PORTS, LISTED),
];

/// A policy of the suite: the host's network, with one port to connect to and one to listen on.
const PORTS: &[&str] = &["test-ports"];
const LISTED: &str = "tried where a policy gives the host's network with ports on a list";
