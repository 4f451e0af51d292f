"""A client in Python: get.py LIBRARY get URL... | get.py LIBRARY put FILE URL

PROXY is the proxy's URL and CA the file of the authority. The usual variables are set,
too. An error ends the program as any error of a program does: with its traceback.
"""

import asyncio
import http.client
import os
import ssl
import sys
import urllib.parse
import urllib.request

PROXY = urllib.parse.urlsplit(os.environ["PROXY"])
CA = os.environ["CA"]
CONTEXT = ssl.create_default_context(cafile=CA)
BY_HTTP = PROXY.scheme == "http"


def write(body):
    sys.stdout.buffer.write(body)


def use_urllib(requests):
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=CONTEXT))
    for method, url, body in requests:
        request = urllib.request.Request(url, data=body, method=method)
        with opener.open(request, timeout=60) as response:
            write(response.read())


def use_requests(requests):
    import requests as library

    with library.Session() as session:
        session.verify = CA
        for method, url, body in requests:
            response = session.request(method, url, data=body, timeout=60)
            response.raise_for_status()
            write(response.content)


def use_httpx(requests):
    import httpx

    with httpx.Client(verify=CONTEXT, timeout=60) as client:
        for method, url, body in requests:
            response = client.request(method, url, content=body)
            response.raise_for_status()
            write(response.content)


async def run_aiohttp(requests):
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=CONTEXT)
    if not BY_HTTP:
        from aiohttp_socks import ProxyConnector

        connector = ProxyConnector.from_url(PROXY._replace(scheme="socks5").geturl(), rdns=True, ssl=CONTEXT)
    async with aiohttp.ClientSession(connector=connector, trust_env=BY_HTTP, raise_for_status=True) as session:
        for method, url, body in requests:
            async with session.request(method, url, data=body) as response:
                write(await response.read())


def use_aiohttp(requests):
    asyncio.run(run_aiohttp(requests))


def use_pysocks(requests):
    import socks

    kinds = {"http": socks.HTTP, "socks5h": socks.SOCKS5, "socks4a": socks.SOCKS4}
    connection = None
    for method, url, body in requests:
        target = urllib.parse.urlsplit(url)
        if connection is None:
            tls = target.scheme == "https"
            sock = socks.create_connection(
                (target.hostname, target.port or (443 if tls else 80)),
                timeout=60,
                proxy_type=kinds[PROXY.scheme],
                proxy_addr=PROXY.hostname,
                proxy_port=PROXY.port,
                proxy_rdns=True,
            )
            connection = http.client.HTTPConnection(target.hostname)
            connection.sock = CONTEXT.wrap_socket(sock, server_hostname=target.hostname) if tls else sock
        connection.request(method, target.path, body=body)
        write(connection.getresponse().read())


def main():
    library, action, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    if action == "put":
        with open(arguments[0], "rb") as file:
            requests = [("PUT", arguments[1], file.read())]
    else:
        requests = [("GET", url, None) for url in arguments]
    globals()["use_" + library](requests)


main()
