"""The parts ebsc ships, registered through the same entry point as anyone's."""
