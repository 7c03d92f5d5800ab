#!/usr/bin/python3
"""The configuration is loaded anew again and again, changed or not, under sessions that talk: no
session is closed that the new configuration still covers, and what was changed takes effect.
"""

import itertools
import shutil
import ssl
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import LabCase, configuration, make_certificate, sized, wait_for  # noqa: E402

RELOADS = sized(30, 100)
SESSIONS = 500
TLS_SESSIONS = 100  # of these
GUESTS = 40  # sessions that come while a further backend is there
RATE = 5


class ReloadTest(LabCase):
    def setUp(self):
        super().setUp()
        self.app = self.start_backends(["one", "two"], "--rate", RATE)
        self.extra = self.start_backends(["stays", "goes"], "--rate", RATE)
        self.weight, self.has_both = 1, False
        self.certificates = itertools.cycle(
            [make_certificate(self.folder, name) for name in ("first", "second", "third")])
        self.served = (self.folder / "served.pem", self.folder / "served.key")
        self.swap_certificate()
        self.start_sluice(self.text())
        self.guests = None
        self.finished = []

    def text(self):
        extra = self.extra if self.has_both else {"stays": self.extra["stays"]}
        app = {"one": self.app["one"], "two": (self.app["two"], self.weight)}
        return configuration({"app": app, "extra": extra}, routes={"/": "app", "/extra": "extra"},
                             certificate=self.served,
                             tables='[drain]\nwindow = "300ms"\ngrace = "3s"\n')

    def swap_certificate(self):
        self.chain, key = next(self.certificates)
        for source, target in zip((self.chain, key), self.served):
            beside = target.with_suffix(".new")
            shutil.copy(source, beside)
            beside.rename(target)

    def serves_the_new_certificate(self):
        host, port = self.sluice.listeners["secure"].split(":")
        return (ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))
                == ssl.PEM_cert_to_DER_cert(self.chain.read_text()))

    def reload(self, number):
        self.sluice.configure(self.text())
        if number % 4 < 2:
            status, body = self.sluice.reload()
            self.assertEqual(status, 200, body)
        else:
            self.assertTrue(self.sluice.reload_by_signal(), self.sluice.tail())

    # Each changes the file before the reload, and returns what has to be true behind it.

    def change_weight(self):
        self.weight = 4 - self.weight
        return lambda: self.sluice.metric("sluice_backend_weight", backend="two") == self.weight

    def change_certificate(self):
        self.swap_certificate()
        return self.serves_the_new_certificate

    def add_backend(self):
        self.has_both = True

        def has_guests():
            if self.guests is None:
                self.guests = self.start_client(f"guests{len(self.finished)}", "--sessions", GUESTS,
                                                "--rate", RATE, "--path", "/extra",
                                                "--first-uid", 10_000 * (len(self.finished) + 2),
                                                "--policy", "fixed:50")
                self.guests.wait_until_open()
            return self.sluice.metric("sluice_sessions_open", backend="goes") > 0
        return has_guests

    def remove_backend(self):
        self.has_both = False
        leaving = self.sluice.metric("sluice_sessions_open", backend="goes")

        def has_moved():
            summary = self.guests.summary()
            if summary["closes"] != {"1012": leaving} or summary["open"] != GUESTS:
                return False
            self.guests.finish()
            self.finished.append(self.guests)
            self.guests = None
            return True
        return has_moved

    def test_sessions_outlive_reloads(self):
        plain = self.start_client("plain", "--sessions", SESSIONS - TLS_SESSIONS, "--rate", RATE)
        secure = self.start_client("secure", "--tls", "--sessions", TLS_SESSIONS, "--rate", RATE,
                                   "--first-uid", 10_000, listener="secure")
        for client in (plain, secure):
            client.wait_until_open()
        changes = itertools.cycle((self.change_weight, self.add_backend, self.change_certificate,
                                   self.remove_backend))
        counted = self.sluice.metric("sluice_reloads_total", result="success")
        for number in range(RELOADS):
            took_effect = next(changes)() if number % 2 else None
            self.reload(number)
            if took_effect:
                wait_for("what was changed", took_effect)
        self.assertEqual(self.sluice.metric("sluice_reloads_total", result="success"),
                         counted + RELOADS)
        clients = [plain, secure, *self.finished]
        if self.guests:
            clients.append(self.guests)
        for client in clients[:2]:
            summary = client.finish()
            self.assertEqual((summary["closes"], summary["failures"]), ({}, {}))
        if self.guests:
            self.assertEqual(self.guests.finish()["closes"], {})
        verdict = self.assert_nothing_lost(*clients)
        self.assertLessEqual(set(verdict.codes), {1012})
        # Who was closed had its session on the backend that was taken out, and on no other.
        told = {(one["uid"], one["n"]) for client in clients for one in client.incarnations()
                if one["by"] == "peer"}
        self.assertEqual({line["backend"] for line in self.sessions()
                          if (line["uid"], line["n"]) in told}, {"goes"})

    def test_a_mistake_changes_nothing(self):
        client = self.start_client("plain", "--sessions", 50, "--rate", RATE)
        client.wait_until_open()
        good = self.text()
        for wrong in (good.replace('pool = "app"', 'pool = "nowhere"'), good + "[nonsense",
                      good.replace(str(self.served[0]), "absent.pem")):
            self.sluice.configure(wrong)
            status, _ = self.sluice.reload()
            self.assertEqual(status, 422)
            self.assertEqual(self.sluice.metric("sluice_config_last_reload_successful"), 0)
            self.assertFalse(self.sluice.reload_by_signal())
        self.sluice.configure(good)
        self.assertEqual(self.sluice.reload()[0], 200)
        self.assertEqual(self.sluice.metric("sluice_config_last_reload_successful"), 1)
        before = client.summary()["received"]
        wait_for("more traffic", lambda: client.summary()["received"] > before + 50)
        self.assertEqual(client.finish()["closes"], {})
        self.assert_nothing_lost(client)


if __name__ == "__main__":
    unittest.main()
