"""Raw requests on which HTTP readers disagree: request smuggling, and how it is refused.

Each entry: a name, the bytes, whether the request is well-formed.
"""

CASES = [
    ("baseline_cl", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", True),
    ("bare_CR_hdr_sep", b"POST / HTTP/1.1\r\nHost: x\r\nX-A:\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", False),
    ("CL_and_TE", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
    ("dup_CL_diff", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", False),
    ("dup_CL_same", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", False),
    ("space_before_colon", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", False),
    ("leading_space_CL", b"POST / HTTP/1.1\r\nHost: x\r\n Content-Length: 5\r\n\r\nhello", False),
    ("obs_fold", b"POST / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", False),
    ("TE_xchunked", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", False),
    ("TE_chunked_identity", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", False),
    ("CL_plus", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", False),
    ("CL_list", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello", False),
    ("CL_neg", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", False),
    ("CL_hex", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", False),
    ("CL_overflow", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\nhello", False),
    ("chunk_overflow", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF1\r\nhello\r\n0\r\n\r\n", False),
    ("chunk_0x", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", False),
    ("chunk_bare_LF", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", False),
    ("chunk_ext", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", True),
    ("chunk_no_trailing_CRLF", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", False),
    ("bare_LF_lines", b"POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello", False),
    ("nul_in_header", b"POST / HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\nContent-Length: 5\r\n\r\nhello", False),
    ("no_host", b"GET / HTTP/1.1\r\n\r\n", False),
    ("two_hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", False),
    ("http_2_0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", False),
    ("http10_TE", b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
]
