"""Asks the server for every form of record and every code, over UDP and TCP, with dnspython. Arguments: address, port."""

import sys

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype

ADDRESS, PORT = sys.argv[1], int(sys.argv[2])
ZONE = "cluster.local."


def ask(query, tcp):
    exchange = dns.query.tcp if tcp else dns.query.udp
    # dnspython itself checks the id, the question and that nothing follows the message.
    return exchange(query, ADDRESS, port=PORT, timeout=5)


def check(name, rtype, rcode="NOERROR", answer=(), authority=None, aa=True, **how):
    for tcp in (False, True):
        query = dns.message.make_query(name, rtype, **how)
        reply = ask(query, tcp)
        where = f"{name} {rtype} {'TCP' if tcp else 'UDP'}\n{reply}"
        assert dns.rcode.to_text(reply.rcode()) == rcode, where
        said = sorted(record.to_text() for rrset in reply.answer for record in rrset)
        assert said == sorted(answer), where
        assert bool(reply.flags & dns.flags.AA) == aa, where
        assert reply.flags & dns.flags.RA and reply.flags & dns.flags.RD, where
        assert not reply.flags & (dns.flags.AD | dns.flags.TC), where
        assert reply.question[0].name.to_text() == dns.name.from_text(name).to_text(), where
        if authority is not None:
            soa = reply.authority[0]
            assert (soa.name.to_text(), soa.rdtype, soa.ttl) == (authority, dns.rdatatype.SOA, 5), where
            assert soa[0].minimum == 5, where
        assert reply.edns == (0 if how.get("use_edns") is not None else -1), where


for edns in (None, 0):
    more = {} if edns is None else {"use_edns": edns, "payload": 1232}
    web, db = f"web.shop.svc.{ZONE}", f"db.shop.svc.{ZONE}"
    check(web, "A", answer=["10.96.0.20"], **more)
    check("WeB.sHoP.SVC.Cluster.Local.", "A", answer=["10.96.0.20"], **more)
    check(web, "AAAA", answer=["fd00::20"], **more)
    check(f"_http._tcp.{web}", "SRV", answer=[f"0 100 80 {web}"], **more)
    check(web, "SRV", answer=[f"0 50 80 {web}", f"0 50 9090 {web}"], **more)
    check(web, "TXT", authority=ZONE, **more)
    check(db, "A", answer=["10.244.0.5", "10.244.0.6", "10.244.0.7", "10.244.0.8"], **more)
    check(f"db-0.{db}", "A", answer=["10.244.0.5"], **more)
    check(f"10-244-0-6.{db}", "A", answer=["10.244.0.6"], **more)
    check("20.0.96.10.in-addr.arpa.", "PTR", answer=[web], **more)
    check("5.0.244.10.in-addr.arpa.", "PTR", answer=[f"db-0.{db}"], **more)
    check(f"dns-version.{ZONE}", "TXT", answer=['"1.1.0"'], **more)
    check(ZONE, "NS", answer=[f"ns.dns.{ZONE}"], **more)
    check(f"shop.svc.{ZONE}", "A", authority=ZONE, **more)
    check(f"_tcp.{web}", "SRV", authority=ZONE, **more)
    check(f"nope.shop.svc.{ZONE}", "A", "NXDOMAIN", authority=ZONE, **more)
    check(f"web.nope.svc.{ZONE}", "AAAA", "NXDOMAIN", authority=ZONE, **more)
    check("web.shop.svc.", "A", answer=["10.96.0.20"], **more)
    check("nope.shop.svc.", "A", "NXDOMAIN", authority="svc.", **more)
    check(f"in.shop.svc.{ZONE}", "A", answer=[web, "10.96.0.20"], **more)
    check("www.example.com.", "A", "SERVFAIL", aa=False, **more)

for tcp in (False, True):
    query = dns.message.make_query(ZONE, "SOA")
    soa = ask(query, tcp).answer[0][0]
    assert (soa.mname.to_text(), soa.minimum) == (f"ns.dns.{ZONE}", 5), soa

    hinfo = ask(dns.message.make_query(web, "ANY"), tcp)
    assert [rrset.rdtype for rrset in hinfo.answer] == [dns.rdatatype.HINFO], hinfo

    chaos = ask(dns.message.make_query("version.bind.", "TXT", rdclass="CH"), tcp)
    assert chaos.rcode() == dns.rcode.NOERROR and not chaos.answer, chaos

    query = dns.message.make_query(web, "A", use_edns=0)
    query.ednsflags |= 1 << 16
    reply = ask(query, tcp)
    assert (reply.rcode(), reply.edns) == (dns.rcode.BADVERS, 0), reply

    transfer = ask(dns.message.make_query(ZONE, "AXFR"), tcp)
    assert transfer.rcode() == (dns.rcode.REFUSED if tcp else dns.rcode.FORMERR), transfer

    option = dns.edns.GenericOption(65001, b"unknown")
    reply = ask(dns.message.make_query(web, "A", use_edns=0, options=[option], want_dnssec=True), tcp)
    assert reply.rcode() == dns.rcode.NOERROR and reply.ednsflags & dns.flags.DO and not reply.options, reply

    query = dns.message.make_query(web, "A")
    query.flags = (query.flags | dns.flags.CD | dns.flags.AD) & ~dns.flags.RD
    reply = ask(query, tcp)
    kept = reply.flags & (dns.flags.RD | dns.flags.CD | dns.flags.AD)
    assert kept == dns.flags.CD, reply

    for opcode in (dns.opcode.IQUERY, dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE):
        query = dns.message.make_query(web, "A")
        query.set_opcode(opcode)
        reply = ask(dns.message.from_wire(query.to_wire()), tcp) if opcode != dns.opcode.UPDATE else None
        assert reply is None or reply.rcode() == dns.rcode.NOTIMP, reply

# What does not fit is cut at whole records, with TC and with the OPT record; over TCP it is whole.
many = f"many.shop.svc.{ZONE}"
for payload, at_most in ((None, 512), (1232, 1232), (4096, 4096)):
    how = {} if payload is None else {"use_edns": 0, "payload": payload}
    query = dns.message.make_query(many, "A", **how)
    reply = ask(query, False)
    whole = ask(query, True)
    assert len(reply.to_wire()) <= at_most, len(reply.to_wire())
    assert reply.flags & dns.flags.TC and reply.answer and len(reply.answer[0]) < 300, payload
    assert not whole.flags & dns.flags.TC and len(whole.answer[0]) == 300
    assert (reply.edns == 0) == (payload is not None)

print("ok")
