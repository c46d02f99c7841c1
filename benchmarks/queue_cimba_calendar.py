"""cimba, in events alone, plays servers that break and jobs that give up.

Its events carry nothing but the model that they belong to: each server is one, and each place to wait. An
event that came to nothing, since the job was taken or its server broke, runs out and is passed over.
"""

from functools import lru_cache

import cimba as cb
from cimba import inputs
from queue_cimba_base import Counted
from queue_models import Model

PLACES = 256  # theirs are far shorter: who waits gives up
LAST = PLACES - 1


class Place(cb.Model):
    """Of a job that waits, until `gives_up_at`."""

    yard: cb.Ref["Yard"]
    number: cb.Param[int] = 0
    urgent: bool = False
    waits: bool = False
    came: float = 0.0
    gives_up_at: float = 0.0

    @cb.function
    def filled(self, urgent: bool) -> None:
        patience = self.yard.patience.next()
        self.urgent = urgent
        self.waits = True
        self.came = cb.now()
        self.gives_up_at = cb.now() + patience
        cb.schedule(self.gives_up, patience)

    @cb.function
    def waited(self) -> None:
        if self.urgent:
            self.yard.waited(cb.now() - self.came)
        else:
            self.yard.waited_2(cb.now() - self.came)

    @cb.event
    def gives_up(self):
        if self.waits and cb.now() >= self.gives_up_at:
            self.waits = False
            self.yard.there += cb.now() - self.came
            self.waited()


class Server(cb.Model):
    yard: cb.Ref["Yard"]
    number: cb.Param[int] = 0
    up: bool = True
    busy: bool = False
    came: float = 0.0
    ends_at: float = 0.0

    @cb.function
    def begins(self, came: float) -> None:
        takes = self.yard.service.next()
        self.busy = True
        self.came = came
        self.ends_at = cb.now() + takes
        self.yard.worked += takes
        cb.schedule(self.ends, takes)

    @cb.event
    def ends(self):
        if self.busy and cb.now() >= self.ends_at:
            self.busy = False
            self.yard.there += cb.now() - self.came
            self.yard.serves(self.number)

    @cb.function
    def will_break(self) -> None:
        cb.schedule(self.breaks, self.yard.up.next())

    @cb.event
    def breaks(self):
        repair = self.yard.repair.next()
        self.up = False
        if self.busy:
            left = self.ends_at - cb.now() + repair
            self.ends_at = cb.now() + left
            cb.schedule(self.ends, left)
        else:
            self.yard.misses(self.number)
        cb.schedule(self.is_mended, repair)

    @cb.event
    def is_mended(self):
        self.up = True
        self.will_break()
        if not self.busy:
            self.yard.serves(self.number)


class Yard(Counted):
    """Numbers of servers that are idle, of places that are free, and of the places in each line, in the order
    in which they were taken."""

    servers: list[Server]
    places: list[Place]
    patience: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    up: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    repair: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    idle: cb.Array[int] = cb.Array(64)
    idles: int = 0
    line: cb.Array[int] = cb.Array(PLACES)
    line_2: cb.Array[int] = cb.Array(PLACES)
    free: cb.Array[int] = cb.Array(list(range(PLACES)))
    frees: int = PLACES
    came: int = 0
    joined: int = 0
    joined_2: int = 0
    taken: int = 0
    taken_2: int = 0

    @cb.on_start
    def opens(self):
        for number in range(len(self.servers)):
            self.servers[number].will_break()
            self.idle[number] = number
        self.idles = len(self.servers)
        cb.schedule(self.arrives, self.gap.next())
        cb.schedule(self.arrives_2, self.gap_2.next())

    @cb.event
    def arrives(self):
        self.came += 1
        if self.came > self.jobs + self.jobs_2:
            cb.end_trial()
            return
        cb.schedule(self.arrives, self.gap.next())
        if self.idles > 0:
            self.idles -= 1
            self.at_once += 1
            self.servers[self.idle[self.idles]].begins(cb.now())
        else:
            self.line[self.joined & LAST] = self.place(True)
            self.joined += 1

    @cb.event
    def arrives_2(self):
        self.came += 1
        if self.came > self.jobs + self.jobs_2:
            cb.end_trial()
            return
        cb.schedule(self.arrives_2, self.gap_2.next())
        if self.idles > 0:
            self.idles -= 1
            self.at_once_2 += 1
            self.servers[self.idle[self.idles]].begins(cb.now())
        else:
            self.line_2[self.joined_2 & LAST] = self.place(False)
            self.joined_2 += 1

    @cb.function
    def place(self, urgent: bool) -> int:
        self.frees -= 1
        number = self.free[self.frees]
        self.places[number].filled(urgent)
        return number

    @cb.function
    def serves(self, number: int) -> None:
        while self.taken < self.joined:
            self.taken += 1
            if self.serves_place(number, self.line[(self.taken - 1) & LAST]):
                return
        while self.taken_2 < self.joined_2:
            self.taken_2 += 1
            if self.serves_place(number, self.line_2[(self.taken_2 - 1) & LAST]):
                return
        self.idle[self.idles] = number
        self.idles += 1

    @cb.function
    def serves_place(self, number: int, place: int) -> bool:
        """Frees the place, whose job may have given up."""
        self.free[self.frees] = place
        self.frees += 1
        if not self.places[place].waits:
            return False
        self.places[place].waits = False
        self.places[place].waited()
        self.servers[number].begins(self.places[place].came)
        return True

    @cb.function
    def misses(self, number: int) -> None:
        """Takes a server from those that are idle."""
        self.idles -= 1
        last = self.idle[self.idles]
        for at in range(self.idles):
            if self.idle[at] == number:
                self.idle[at] = last


@lru_cache
def yard(model: Model) -> Yard:
    made = Yard()
    made.patience = inputs.dist.exponential(mean=model.patience)
    made.up, made.repair = inputs.dist.exponential(mean=model.up), inputs.dist.exponential(mean=model.repair)
    made.servers = [member(Server(), made, number) for number in range(model.servers)]
    made.places = [member(Place(), made, number) for number in range(PLACES)]
    return made


def member(what: Server | Place, of: Yard, number: int) -> Server | Place:
    what.yard, what.number = of, number
    return what
