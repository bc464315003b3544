"""The mirror's dashboard at /mirror: pages made on the server, without scripts."""
