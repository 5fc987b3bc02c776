#!/usr/bin/env python3
"""Writes the seeds beside this script. All of them are made up here; none is anybody's mail."""

import base64
import pathlib

HERE = pathlib.Path(__file__).parent
CONTENT = bytes(range(256)) * 3


def encoded(content, width=76, end=b"\r\n", last=True):
    text = base64.b64encode(content)
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    return end.join(lines) + (end if last else b"")


def crlf(text):
    return text.replace("\n", "\r\n").encode()


PLAIN = crlf("From: a@example.org\nTo: b@example.org\nSubject: plain\n\nHello,\n\nthis is all.\n")
MIXED = crlf(
    "From: a@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b 1\"\n\npreamble\n"
    "--b 1\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe=\n.\n"
    "--b 1\nContent-Type: application/pdf; name*=utf-8''a%20b.pdf\nContent-Transfer-Encoding: base64\n\n"
) + encoded(CONTENT) + crlf("--b 1--\nepilogue\n")
NESTED = crlf(
    "Content-Type: multipart/alternative;\n boundary=outer\n\n--outer\nContent-Type: message/rfc822\n\n"
    "Subject: inner\nContent-Type: multipart/related; boundary=outer-inner\n\n--outer-inner\n"
    "Content-Transfer-Encoding: base64\n\n"
) + encoded(CONTENT, 72) + crlf("--outer-inner--\n--outer\n\ntext\n--outer--\n")
UNCLOSED = crlf("Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: a\n")
IRREGULAR = (
    b"Content-Transfer-Encoding: base64\n\n\n" + encoded(CONTENT, 76, b"\n") + b"QUJD\n====\nnot base64 at all\n\n" + encoded(b"end", end=b"\n")
)
BARE_CR = b"Content-Type: multipart/mixed; boundary=x\r\r--x\r\rtext\r--x--\r"
MESSAGES = {
    "plain": PLAIN,
    "mixed": MIXED,
    "mixed-lf": MIXED.replace(b"\r\n", b"\n"),
    "nested": NESTED,
    "unclosed": UNCLOSED,
    "irregular": IRREGULAR,
    "bare-cr": BARE_CR,
    "empty": b"",
}
BASE64 = {
    "regular-76": encoded(CONTENT),
    "regular-72-lf": encoded(CONTENT, 72, b"\n"),
    "one-line": base64.b64encode(CONTENT),
    "width-5": encoded(CONTENT[:40], 5, b"\n"),
    "blank-lines": b"\n\n\n\n" + encoded(CONTENT, 76, b"\n") + b"\n" * 9,
    "mixed-ends": encoded(CONTENT[:114]) + encoded(CONTENT, 76, b"\n"),
    "tail-bits": b"QUJDRB==\r\n",
    "padding-inside": b"QUI=QUJD\r\n",
    "one-octet": b"QQ==",
}
# A span of each kind: literal "ab", verbatim, base64 of 300 in pieces of 100, inline base64 of "xyz", run.
RECIPES = {"each-kind": bytes([5, 2 << 3, 5 << 3 | 1, 0, 0xE2, 0x12, 100, 3, 3 << 3 | 3, 3, 9 << 3 | 4, 4]) + b"abxyz"}
MBOXES = {
    "three": b"From a@example.org Thu Jan  1 00:00:00 1998\nSubject: 1\n\none\n>From quoted\n\nFrom b Fri Jan  2 00:00:00 1998\nStatus: RO\n\n"
    b"From here it goes on\n\nFrom c@example.org Sat Jan  3 00:00:00 1998 +0100\nContent-Length: 5\n\nFrom \n\n",
    "crlf": b"From a Thu Jan  1 00:00:00 1998\r\n\r\nx\r\n\r\nFrom a Thu Jan  1 00:00:00 1998\r\nX-Keywords: a b\r\n\r\n",
    "not-one": b"Subject: no From_ line\n\nFrom nobody\n",
}
# What `pack` chooses by its first octet, with octets that lead deep into each.
PACKS = {
    "pack": bytes([0, 1, 34]) + bytes(32) + bytes([25, 4]) + b"\x00blob",
    "pack-changed": bytes([1, 1, 3, 40, 9]) + b"some text" + bytes([1, 4]) + b"more" + bytes([0, 0, 130, 2, 7]),
    "commit": bytes([2, 1, 65, 1, 0]) + bytes(8) + bytes([1, 0, 1, 0, 0, 1]) + bytes(16) + bytes([1, 1, 2, 40, 24]) + bytes(16),
    "commit-changed": bytes([3, 1, 2, 3, 97, 98, 99, 1, 47, 2, 1, 1, 120, 0, 5, 2, 9, 9, 60]) + bytes(range(90)),
    "columns": bytes([4, 1, 1, 0, 1, 0]) + b"\1\0\1\2\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0" + bytes([32]) + bytes(32) + b"\1\5\1\0\2\0\3\1\0",
    "config": bytes([5]) + b"MRCONF\1\0" + bytes(16) + bytes([0]) + bytes(32),
    "tables": bytes([6, 1]) + bytes(16) + bytes([1, 0, 40, 9, 9, 0]) + bytes(32),
}
# Of each kind: one of no particular octets, one sealed that is right, one changed.
PAYLOADS = {
    4: b"MRSLOT\1\0" + bytes(32 + 16) + bytes([1]) + bytes(80 + 60),
    5: bytes([0, 1]) + bytes(16) + bytes([1, 0, 40, 9, 9, 0]) + bytes(32),
    6: bytes([1, 0, 3, 4, 1, 1]) + b"m",
    7: bytes([1, 1]) + bytes(16) + bytes([1]) + bytes(16) + bytes([3]),
    8: bytes([1, 1]) + bytes(16) + bytes([0]),
    9: bytes([1, 5, 3]) + b"why",
    10: bytes([7, 6]) + b"reason",
    11: bytes([1, 40, 1]) + bytes(16) + bytes([1, 0, 40, 9, 9, 0]) + bytes(32),
}
OBJECTS = {f"{kind}-{how}": bytes([kind, how]) + octets for kind, octets in PAYLOADS.items() for how in range(4)}
OBJECTS["config"] = bytes([2, 0]) + b"MRCONF\1\0" + bytes(16) + bytes([0]) + bytes(48)
OBJECTS["run-ended"] = bytes([6, 2, 1, 1, 3, 4]) + bytes(16) + bytes([1, 1, 97, 1, 98, 1, 1, 109, 2]) + bytes(32)
ROUND_TRIPS = {f"{kind}": bytes([kind]) + bytes(range(1, 120)) for kind in range(8)}
GENERATED = {f"{seed}": bytes((at * at * (seed * 2 + 1) >> 3) & 255 for at in range(700)) for seed in range(12)}


def write(target, seeds, front=b""):
    (HERE / target).mkdir(exist_ok=True)
    for name, octets in seeds.items():
        (HERE / target / name).write_bytes(front + octets)


write("framer", MESSAGES, bytes([0, 7, 1, 64]))
write("framer", {f"{name}-limits": octets for name, octets in MESSAGES.items()}, bytes([0xCF, 3, 5, 1]))
write("recipe", MESSAGES, bytes([15]))
write("recipe", RECIPES, bytes([0]))
write("base64_shape", BASE64, bytes([5]))
write("mbox_split", MBOXES, bytes([63, 0, 255, 0]))
write("mbox_split", {f"{name}-small": octets for name, octets in MBOXES.items()}, bytes([2, 0, 1, 2]))
write("pack", PACKS)
write("objects", OBJECTS)
write("round_trip", ROUND_TRIPS)
write("message", GENERATED)
