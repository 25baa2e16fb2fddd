#!/usr/bin/env bash
# Chromium 156: the same mouse events of a drag end on another element if they are sent later
#
# Packages: chromium-headless-shell and chromium-common 156.0.8078.114-1~deb12u1 of Debian 12 (security),
# whose own libraries must be there (apt-get install chromium-headless-shell brings them).
# A drag over the DevTools protocol that selects text near the edge of a part that scrolls scrolls it, a
# step every frame for as long as the button is held, whatever events come. So an agent's drag that is
# replayed from its recorded events lets go over another element, with another selection, as soon as
# the machine takes longer between two of them; the page's own handlers (mouseup, click) see that
# element. Neither a paused page clock nor equal coordinates help. Who replays must put the
# scroll back before the release.
# Seen: "the last event sent 2 s later: another row, further scrolled"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
for name in chromium-headless-shell chromium-common; do
    apt-get download -q=9 "$name=156.0.8078.114-1~deb12u1" > /dev/null 2>&1
    dpkg -x "$name"_*.deb "$work/x"
done
cat > "$work/page.html" <<'HTML'
<!doctype html><style>body { margin: 0 } #box { width: 200px; height: 100px; overflow-y: scroll }
p { margin: 0; height: 20px; font: 16px monospace }</style><div id="box"></div><script>
const box = document.getElementById('box');
for (let n = 1; n <= 60; n++) box.innerHTML += `<p id="row-${n}">some words in ${n}</p>`;
document.addEventListener('mouseup', e => { window.ended = [e.target.id, box.scrollTop]; });
</script>
HTML
cat > "$work/drag.py" <<'PY'
import json, os, subprocess, sys, tempfile, time

START = ("import fcntl,os,sys; r,w=(fcntl.fcntl(int(n),fcntl.F_DUPFD,10) for n in sys.argv[1:3]);"
         "os.dup2(r,3); os.dup2(w,4); os.execv(sys.argv[3],sys.argv[3:])")

def ended(page, hold):
    """The element that a drag ends on and how far its part has scrolled, the last event held back."""
    reads, to = os.pipe()
    back, writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [sys.executable, "-c", START, str(reads), str(writes), sys.argv[1], "--headless",
             "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"],
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

        def evaluate(script):
            return call("Runtime.evaluate", session, expression=script, returnByValue=True)["result"].get("value")

        def mouse(kind, x, y, **more):
            call("Input.dispatchMouseEvent", session, type=kind, x=x, y=y, button="left", clickCount=1, **more)

        target = call("Target.createTarget", url=f"file://{page}")["targetId"]
        session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        while evaluate("!!document.getElementById('row-60')") is not True:
            time.sleep(0.05)
        mouse("mousePressed", 40, 30)
        for y in (50, 70, 96):
            mouse("mouseMoved", 90, y, buttons=1)
        time.sleep(hold)
        mouse("mouseReleased", 90, 96)
        found = evaluate("window.ended")
        call("Browser.close")
        browser.wait(30)
        return found

(row, scrolled), (later, further) = (ended(sys.argv[2], hold) for hold in (0, 2))
print(f"at once: {row}, scrolled by {scrolled}; held for 2 s: {later}, scrolled by {further}", file=sys.stderr)
assert further > scrolled and int(later.split("-")[1]) > int(row.split("-")[1])
print("the last event sent 2 s later: another row, further scrolled")
PY
python3 "$work/drag.py" "$work/x/usr/lib/chromium/chromium-headless-shell" "$work/page.html"
