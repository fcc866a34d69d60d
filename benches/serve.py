#!/usr/bin/python3
"""serve.py PROGRAM: what `serve` gives to several clients at once, against nginx: seconds, CPU of the server, memory.

A file of 205 MB, fetched by four clients of curl over loopback, and by forty at once as by a room of machines; by a client of libnfs over
NFS; many small requests, by wrk where it is installed; two hundred slow clients. Medians of REPEAT (5), both in turns.
"""
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPEAT = int(os.environ.get("REPEAT", "5"))
TICK = os.sysconf("SC_CLK_TCK")
SIZE = 204_796_028


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port):
    while True:
        with socket.socket() as there:
            if there.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.005)


def family(pid):
    """A process and its children."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def cpu(pid):
    total = 0
    for process in family(pid):
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def peak(pid):
    """The most memory that it had, in MB."""
    total = 0
    for process in family(pid):
        for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                total += int(line.split()[1])
    return total / 1000


def fetch(url, clients, more=()):
    began = time.monotonic()
    running = [subprocess.Popen(["curl", "-s", *more, "-o", "/dev/null", url]) for _ in range(clients)]
    if any(client.wait() for client in running):
        sys.exit(f"{url}: curl failed")
    return time.monotonic() - began


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as top:
        folder = pathlib.Path(top) / "set"
        folder.mkdir()
        (folder / "boot.ipxe").write_text("#!ipxe\n")
        with (folder / "large.combined").open("wb") as file:
            file.write(os.urandom(1 << 20) * (SIZE >> 20) + bytes(SIZE % (1 << 20)))
        os.chmod(top, 0o755)
        ports = free_port(), free_port(), free_port()
        config = pathlib.Path(top) / "nginx.conf"
        config.write_text(f"daemon off; worker_processes 2; pid {top}/pid; error_log /dev/null; events {{}} http {{ access_log off; sendfile on; "
                          f"server {{ listen 127.0.0.1:{ports[0]}; location /set/ {{ root {top}; }} }} }}")
        nginx = subprocess.Popen([shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-c", config], stderr=subprocess.DEVNULL)
        own = subprocess.Popen([program, "serve", folder, "--on", "lo", "--http", str(ports[1]), "--nfs", str(ports[2])], stdout=subprocess.DEVNULL)
        began = time.monotonic()
        wait_for(ports[1])
        start = time.monotonic() - began
        wait_for(ports[0])
        servers = {"nginx": (nginx.pid, ports[0]), "stagegraph": (own.pid, ports[1])}
        figures = {name: ([], []) for name in servers}
        for _ in range(REPEAT):
            for name, (pid, port) in servers.items():
                before = cpu(pid)
                figures[name][0].append(fetch(f"http://127.0.0.1:{port}/set/large.combined", 4))
                figures[name][1].append(cpu(pid) - before)
        print("| what | nginx | stagegraph | ratio |\n|---|---|---|---|")
        walls, cpus = ({name: statistics.median(figures[name][n]) for name in servers} for n in (0, 1))
        print(f"| 4 clients, 205 MB each, MB/s | {4 * SIZE / 1e6 / walls['nginx']:.0f} | {4 * SIZE / 1e6 / walls['stagegraph']:.0f} "
              f"| {walls['nginx'] / walls['stagegraph']:.2f} |")
        per = {name: cpus[name] / (4 * SIZE / 1e9) for name in servers}
        print(f"| CPU of the server for a GB, s | {per['nginx']:.2f} | {per['stagegraph']:.2f} | {per['stagegraph'] / max(per['nginx'], 0.01):.1f} |")
        rates = {}
        for name, (_, port) in servers.items():
            url = f"http://127.0.0.1:{port}/set/large.combined"
            one = statistics.median(SIZE / fetch(url, 1) for _ in range(REPEAT))
            rates[name] = 40 * SIZE / fetch(url, 40) / one
        print(f"| 40 clients, of the rate of one | {rates['nginx']:.2f} | {rates['stagegraph']:.2f} | {rates['stagegraph'] / rates['nginx']:.2f} |")
        if shutil.which("nfs-cat"):
            url = f"nfs://127.0.0.1/set/large.combined?version=3&nfsport={ports[2]}&mountport={ports[2]}"
            took = []
            for _ in range(REPEAT):
                began = time.monotonic()
                subprocess.run(["nfs-cat", url], stdout=subprocess.DEVNULL, check=True)
                took.append(time.monotonic() - began)
            print(f"| one client of NFS, MB/s | | {SIZE / 1e6 / statistics.median(took):.0f} | |")
        if shutil.which("wrk"):
            rates = {}
            for name, (_, port) in servers.items():
                text = subprocess.run(["wrk", "-t1", "-c60", "-d3s", f"http://127.0.0.1:{port}/set/boot.ipxe"],
                                      capture_output=True, text=True, check=True).stdout
                rates[name] = next(float(line.split()[1]) for line in text.splitlines() if "Requests/sec" in line)
            print(f"| small answers a second | {rates['nginx']:.0f} | {rates['stagegraph']:.0f} | {rates['stagegraph'] / rates['nginx']:.2f} |")
        idle = peak(own.pid)
        # From one address there are 64 at most, so from several.
        slow = [subprocess.Popen(["curl", "-s", "--interface", f"127.0.1.{1 + number // 50}", "--limit-rate", "400K", "--max-time", "8", "-o", "/dev/null",
                                  f"http://127.0.0.1:{ports[1]}/set/large.combined"]) for number in range(200)]
        time.sleep(7)
        connected = sum(client.poll() is None for client in slow)
        most = peak(own.pid)
        for client in slow:
            client.wait()
        print(f"| memory until then, MB | | {idle:.0f} | |\n| with {connected} slow clients, MB | | {most:.0f} | |\n| start to first connection, ms | | {1000 * start:.0f} | |")
        own.send_signal(signal.SIGTERM)
        nginx.terminate()
        own.wait()
        nginx.wait()


if __name__ == "__main__":
    main()
