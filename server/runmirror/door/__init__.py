"""What stands between the network and the routes: who may be called under which name, from where, and how much."""
