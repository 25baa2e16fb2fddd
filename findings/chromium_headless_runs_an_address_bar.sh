#!/usr/bin/env bash
# Chromium 156, headless: every browser context gets pages of an address bar that nobody sees
#
# Packages: chromium and chromium-common 156.0.8078.114-1~deb12u1 of Debian 12 (security), whose own
# libraries must be there (apt-get install chromium brings them).
# With `--headless=new` a context opened over the DevTools protocol is a whole window. Since the popup of
# the address bar is a web page, each window loads one or two of them, chrome://omnibox-popup.top-chrome, in
# renderers of their own. `Target.getTargets` says nothing of them unless it is asked for all types
# (`browser_ui`). Who opens a context an episode pays about twice: eight contexts had 19 renderers
# with them and 10 without, and took 1.7 and 1.0 seconds of CPU. `--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup` leaves them
# out, the first alone does not; `--no-startup-window` saves one page more. The package
# chromium-headless-shell has no windows, and no such pages.
# Seen: "as it is: 8 pages, address bars: yes", "without the features: 8 pages, address bars: no"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
for name in chromium chromium-common; do
    apt-get download -q=9 "$name=156.0.8078.114-1~deb12u1" > /dev/null 2>&1
    dpkg -x "$name"_*.deb "$work/x"
done
cat > "$work/contexts.py" <<'PY'
import json, os, subprocess, sys, tempfile, time

FEATURES = "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup"
START = ("import fcntl,os,sys; r,w=(fcntl.fcntl(int(n),fcntl.F_DUPFD,10) for n in sys.argv[1:3]);"
         "os.dup2(r,3); os.dup2(w,4); os.execv(sys.argv[3],sys.argv[3:])")

def targets(*flags):
    """Contexts are opened; what targets of what types there are a while later."""
    reads, to = os.pipe()
    back, writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [sys.executable, "-c", START, str(reads), str(writes), sys.argv[1], "--headless=new",
             "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
             f"--user-data-dir={profile}", *flags],
            pass_fds=[reads, writes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(reads); os.close(writes)
        heard, number = os.fdopen(back, "rb"), 0

        def call(method, **params):
            nonlocal number
            number += 1
            os.write(to, json.dumps({"id": number, "method": method, "params": params}).encode() + b"\0")
            said = b""
            while True:
                byte = heard.read(1)
                assert byte, "the browser is gone"
                if byte != b"\0":
                    said += byte
                    continue
                answer, said = json.loads(said), b""
                if answer.get("id") == number:
                    return answer["result"]

        for _ in range(8):
            context = call("Target.createBrowserContext")["browserContextId"]
            call("Target.createTarget", url="about:blank", browserContextId=context)
        for _ in range(20):
            time.sleep(1)
            found = call("Target.getTargets", filter=[{}])["targetInfos"]
            bars = [t for t in found if "omnibox-popup" in t["url"]]
            if bars:
                break
        pages = [t for t in found if t["type"] == "page" and t["url"] == "about:blank"]
        call("Browser.close")
        browser.wait()
        return len(pages), len(bars)

plain, without = targets(), targets(FEATURES)
for name, (pages, bars) in (("as it is", plain), ("without the features", without)):
    print(f"{name}: {pages} pages, address bars: {'yes' if bars else 'no'}")
assert plain[0] == without[0] == 8 and plain[1] >= 4 and without[1] == 0, (plain, without)
PY
python3 "$work/contexts.py" "$work/x/usr/lib/chromium/chromium"
