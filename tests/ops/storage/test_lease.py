"""The lease on a run: one holder, freed at the end, taken over from the dead, never from the living. A real server."""

import json
import shutil
import threading
import time

import pytest
from refusals import one_line

from ops.errors import ServiceError, SettingsError
from ops.storage import lease as lease_module
from ops.storage import object_store
from ops.storage.lease import LEASE_FILE, Lease, Lost

pytestmark = pytest.mark.slow


@pytest.fixture
def place(s3, request, monkeypatch):
    monkeypatch.setattr(lease_module, "LASTS", 60.0)
    monkeypatch.setattr(lease_module, "EVERY", 0.5)
    monkeypatch.setattr(lease_module, "LOOK", 0.2)
    return object_store.parse(f"s3://tessera/lease/{request.node.name}")


@pytest.fixture
def short(place, monkeypatch):
    """Where nobody renews a lease, or all that is looked at is that somebody waits for its end."""
    monkeypatch.setattr(lease_module, "LASTS", 3.0)


@pytest.fixture
def machine(place, tmp_path):
    """Makes leases of other machines' folders."""

    def lease(name: str, said: list[str] | None = None, **more) -> Lease:
        (tmp_path / name).mkdir(exist_ok=True)
        return Lease(place, tmp_path / name, (said if said is not None else []).append, **more)

    return lease


def test_a_living_holder_is_named(machine, place):
    said: list[str] = []
    with machine("one") as one:
        time.sleep(1.5)  # renewed meanwhile
        text = one_line(SettingsError, machine("other", said).__enter__)
        assert text.startswith(f"{place}: process ")
        assert "is at work on this run (since " in text
        assert text.endswith("wait for it, end it, or give another --name")
        assert len(said) == 1
        assert "waiting to see whether it is still at work" in said[0]
        one.check()
    assert object_store.listing(place) == {}, "given back at the end"
    with machine("other", said):
        pass
    assert len(said) == 1


def dead(machine, name: str) -> Lease:
    """A lease whose process was killed: nobody renews it, nobody gives it back."""
    lease = machine(name).__enter__()
    lease._over.set()
    lease._thread.join()
    return lease


def test_a_dead_holder_is_waited_for_on_another_machine_and_not_on_its_own(machine, short):
    dead(machine, "one")
    said: list[str] = []
    with machine("one", said):
        assert said == [], "nothing to wait for"
    killed = dead(machine, "one")
    with machine("other", said) as other:
        assert "at most" in said[0]
        killed._renewed = 0.0  # it was asleep, not dead
        with pytest.raises(Lost, match="the lease was lost to process"):
            killed.check()
        other.check()


def test_a_folder_in_the_place_of_a_removed_one_is_another(machine, short, tmp_path):
    living = dead(machine, "one")  # or alive, in a folder that is no longer there
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "one").mkdir()  # most file systems give it the inode that has just become free
    said: list[str] = []
    with machine("one", said):
        assert "held this run" in said[0]
        living._renewed = 0.0
        with pytest.raises(Lost):
            living.check()


def test_a_trial_waits_for_the_living(machine):
    order = []
    first = machine("one").__enter__()

    def second() -> None:
        with machine("other", wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(2)
    order.append("first")
    first.__exit__(None, None, None)
    thread.join()
    assert order == ["first", "second"]


def test_of_many_starts_at_once_one_wins(machine):
    won, lost = [], []

    def start(number: int) -> None:
        try:
            won.append(machine(f"m{number}").__enter__())
        except SettingsError:
            lost.append(number)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(won), len(lost)) == (1, 4)
    won[0].__exit__(None, None, None)


@pytest.mark.parametrize("ignored", ["IfNoneMatch", "IfMatch"])
def test_a_store_that_ignores_conditions_is_refused(machine, place, monkeypatch, ignored):
    """SeaweedFS looks at them; what other stores do is done here, to what is sent."""

    class Ignoring:
        def __init__(self, client):
            self.client = client

        def __getattr__(self, name):
            return getattr(self.client, name)

        def put_object(self, **request):
            request.pop(ignored, None)
            return self.client.put_object(**request)

    client = lease_module.client
    monkeypatch.setattr(lease_module, "client", lambda patient=True: Ignoring(client(patient)))
    text = one_line(SettingsError, machine("one").__enter__)
    assert text.startswith(f"{place}: this store ignores conditional writes (If-None-Match, If-Match)")
    assert object_store.listing(place) == {}, "nothing is left there"


def test_writes_are_conditional(s3):
    place = object_store.parse("s3://tessera/conditional")
    first = lease_module._write(place, b"1", "", True)
    second = lease_module._write(place, b"3", first, True)
    for etag in ("", first):
        with pytest.raises(object_store.Conflict):
            lease_module._write(place, b"4", etag, True)
    entry = lease_module._read(place)
    assert (entry.etag, entry.age < 300, object_store.read(place)) == (second, True, b"3")
    object_store.delete(place)
    with pytest.raises(object_store.Conflict):
        lease_module._write(place, b"0", second, True)


def test_a_server_that_goes_away_does_not_lose_the_lease(machine, place, monkeypatch):
    with machine("one") as one:
        with monkeypatch.context() as gone:
            gone.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            time.sleep(1.2)
            one._renewed = 0.0
            with pytest.raises(ServiceError, match="storage cannot be reached"):
                one.check()
        one._renewed = 0.0
        one.check()


def test_what_stands_there_need_not_be_ours(machine, short, place, s3):
    object_store.write(place / LEASE_FILE, b"\xff not JSON")
    said: list[str] = []
    with machine("one", said):
        assert "process unknown on unknown" in said[0]
        assert set(json.loads(s3.get("lease/" + place.name + "/" + LEASE_FILE))) == {
            "token",
            "host",
            "pid",
            "since",
            "local",
            "renewed",
        }
