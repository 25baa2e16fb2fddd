#!/usr/bin/env bash
# Chromium 156: a page in one state has other pixels, by how many frames were drawn on the way there
#
# Packages: chromium-headless-shell and chromium-common 156.0.8078.114-1~deb12u1 of Debian 12 (security),
# whose own libraries must be there (apt-get install chromium-headless-shell brings them).
# Where only a part of a tile has changed, the software compositor draws that part anew and keeps the
# rest of the old tile. At the part's rim smooth edges are then drawn over what stood there, so a
# screenshot of the very same document depends on which intermediate frames were drawn, a matter of
# how busy the machine is: shades of up to 50 of 255 along the rims. An agent's episode that is replayed
# from its actions, or a cache by a screenshot's hash, sees another screen now and then.
# --disable-partial-raster draws tiles whole and makes the pixels a function of the document.
# Seen: "same document: several pictures; with --disable-partial-raster: 1"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
for name in chromium-headless-shell chromium-common; do
    apt-get download -q=9 "$name=156.0.8078.114-1~deb12u1" > /dev/null 2>&1
    dpkg -x "$name"_*.deb "$work/x"
done
cat > "$work/page.html" <<'HTML'
<!doctype html><style>body { margin: 0 } #cover { position: absolute; background: #00f }</style>
<svg width="160" height="160"><circle cx="80.3" cy="80.4" r="40.2" fill="#444" stroke="#422" stroke-width="2.3"/>
<rect x="20.5" y="30.2" width="77.7" height="13.3" fill="#a33" transform="rotate(13 80 80)"/></svg>
<div id="cover"></div><script>
const drawn = () => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
const cover = n => document.getElementById('cover').style.cssText =
  `left:${30 + n * 9.37}px; top:${30 + n * 3.7}px; width:${20 + n * 3.3}px; height:${40 + n * 2.1}px`;
async function go(between) {
  for (let n = 0; n < 6; n++) { cover(n); if (between) await drawn(); }
  await drawn();
}
</script>
HTML
cat > "$work/raster.py" <<'PY'
import json, os, subprocess, sys, tempfile, time

START = ("import fcntl,os,sys; r,w=(fcntl.fcntl(int(n),fcntl.F_DUPFD,10) for n in sys.argv[1:3]);"
         "os.dup2(r,3); os.dup2(w,4); os.execv(sys.argv[3],sys.argv[3:])")

def pictures(page, *flags):
    """How many pictures the page's one last state has, in 16 plays, every other with frames between."""
    reads, to = os.pipe()
    back, writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [sys.executable, "-c", START, str(reads), str(writes), sys.argv[1], "--headless", "--no-sandbox",
             "--remote-debugging-pipe", "--disable-gpu", *flags, f"--user-data-dir={profile}"],
            pass_fds=[reads, writes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(reads); os.close(writes)
        heard, number = os.fdopen(back, "rb"), 0

        def call(method, session=None, **params):
            nonlocal number
            number += 1
            message = {"id": number, "method": method, "params": params}
            os.write(to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
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

        seen = set()
        for play in range(16):
            target = call("Target.createTarget", url=f"file://{page}", width=160, height=160)["targetId"]
            session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

            def evaluate(script):
                return call("Runtime.evaluate", session, expression=script, awaitPromise=True,
                            returnByValue=True)["result"].get("value")

            while evaluate("document.readyState == 'complete' && typeof go == 'function'") is not True:
                time.sleep(0.05)
            evaluate("drawn()")
            evaluate(f"go({play % 2})")
            seen.add(call("Page.captureScreenshot", session, format="png")["data"])
            call("Target.closeTarget", targetId=target)
        call("Browser.close")
        browser.wait(30)
        return len(seen)

usual, whole = pictures(sys.argv[2]), pictures(sys.argv[2], "--disable-partial-raster")
print(f"{usual} pictures, then {whole}", file=sys.stderr)
assert usual > whole == 1
print("same document: several pictures; with --disable-partial-raster: 1")
PY
python3 "$work/raster.py" "$work/x/usr/lib/chromium/chromium-headless-shell" "$work/page.html"
